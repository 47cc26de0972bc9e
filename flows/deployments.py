"""Serve the flows to Prefect: on a schedule and on demand, without a worker or pool.

    python -m flows.deployments serve.json

Deployed by module entrypoint only: a path entrypoint would put flows/ first on sys.path for good.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import PipelineConfig, load_config
from infra.artifact import atomic_write
from infra.errors import ConfigError
from infra.settings import Config

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

log = logging.getLogger(__name__)


class ServeJob(Config):
    """The one file of `python -m flows.deployments`."""

    config: Path
    """The pipeline's config file."""
    ready_file: Path
    """Written when all deployments are registered."""


def deployments(config: PipelineConfig, config_file: Path) -> list[RunnerDeployment]:
    """All deployments of a pipeline, with the schedules of its config."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.ingest import ingest
    from flows.nightly import nightly
    from flows.rollback import rollback
    from flows.watch import watch

    schedule = config.schedule
    # One at a time; what comes due meanwhile is not queued up, so a machine that was off catches up once.
    alone = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    common: dict[str, Any] = {
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "concurrency_limit": alone,
        "tags": ["ratchet", config.pipeline],
    }
    file = {"config": str(config_file.absolute())}

    def cron(expression: str | None) -> dict[str, Any]:
        return {"schedule": Cron(expression, timezone=schedule.timezone)} if expression else {}

    made: list[Any] = []
    for tenant in config.tenants:
        name = config.pipeline if len(config.tenants) == 1 else f"{config.pipeline}-{tenant}"
        made.append(
            nightly.to_deployment(
                name=name, parameters={**file, "request": {"tenant": tenant}}, **cron(schedule.nightly), **common
            )
        )
    name = config.pipeline
    made.append(ingest.to_deployment(name=name, parameters=file, **cron(schedule.ingest), **common))
    made.append(watch.to_deployment(name=name, parameters=file, **cron(schedule.watch), **common))
    made.append(rollback.to_deployment(name=name, parameters=file, **common))
    return made


async def serve(job: ServeJob, config: PipelineConfig, made: list[RunnerDeployment]) -> None:
    """Register the deployments and run what comes due, until SIGTERM."""
    from prefect.runner import Runner

    # Schedules stay on when this process stops: it may be restarted, and a night must not be lost over that.
    runner = Runner(name=f"ratchet-{config.pipeline}", limit=4, pause_on_shutdown=False)
    for deployment in made:
        await runner.aadd_deployment(deployment)
        log.info("serving %s/%s", deployment.flow_name, deployment.name)
    atomic_write(job.ready_file, "registered\n")
    await runner.start()


def main(argv: list[str]) -> int:
    """``python -m flows.deployments serve.json``"""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if len(argv) != 1:
        raise ConfigError(f"expected one argument, a serve.json; got {argv}")
    job = ServeJob.model_validate_json(Path(argv[0]).read_text())
    config = load_config(job.config)
    # Made outside the event loop: inside, Prefect hands back coroutines instead.
    asyncio.run(serve(job, config, deployments(config, job.config)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
