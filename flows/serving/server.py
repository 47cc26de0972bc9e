"""Serve the flows to Prefect: on a schedule and on demand, without a worker or pool.

    python -m flows.serving.server serve.json

`ratchet deploy` registers the same list on a work pool instead (flows/serving/work_pools.py). What is deployed stands
in flows/serving/plans.py.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.serving.crash_recovery import LOOK_SECONDS, CrashRecovery, close_orphaned_runs
from flows.serving.plans import DeploymentPlan, deployment_plans
from infra.artifact import atomic_write
from infra.processes.job_file import job_main
from infra.settings import Config

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

log = logging.getLogger(__name__)

MIRROR_SECONDS = 5.0
"""Wait between two looks for alerts that Prefect does not have as events yet."""


TRACE_SECONDS = 15.0
"""Wait between two looks for interactions to show as traces."""


class ServeJob(Config):
    """The one file of `python -m flows.serving.server`."""

    config: Path
    """The pipeline's config file."""
    ready_file: Path
    """Written when all deployments are registered."""


def prefect_deployment(plan: DeploymentPlan, **more: Any) -> RunnerDeployment:
    """A plan as Prefect's deployment, by module entrypoint."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    flow = getattr(import_module(f"flows.{plan.flow}"), plan.flow)
    if plan.cron:
        more["schedule"] = Cron(plan.cron, timezone=plan.timezone)
    made: RunnerDeployment = flow.to_deployment(
        name=plan.name,
        parameters=plan.parameters,
        tags=list(plan.tags),
        description=plan.description,
        entrypoint_type=EntrypointType.MODULE_PATH,
        # One at a time; what comes due meanwhile is not queued up, so a machine that was off catches up once.
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        **more,
    )
    return made


def deployments(config: PipelineConfig, config_file: Path) -> list[RunnerDeployment]:
    """All deployments of a pipeline, with the schedules of its config."""
    return [prefect_deployment(plan) for plan in deployment_plans(config, config_file.absolute())]


async def serve(job: ServeJob, config: PipelineConfig, made: list[RunnerDeployment]) -> None:
    """Register the deployments and run what comes due, until SIGTERM.

    Meanwhile alerts are mirrored as Prefect events, interactions as MLflow traces, and nights whose process crashed
    are resumed.
    """
    from prefect.runner import Runner

    await asyncio.to_thread(close_orphaned_runs, config)
    # Schedules stay on when this process stops: it may be restarted, and a night must not be lost over that.
    runner = Runner(name=f"ratchet-{config.pipeline}", limit=4, pause_on_shutdown=False)
    for deployment in made:
        await runner.aadd_deployment(deployment)
        log.info("serving %s/%s", deployment.flow_name, deployment.name)
    atomic_write(job.ready_file, "registered\n")
    beside = [asyncio.create_task(work(config)) for work in (_mirror, _trace, _recover)]
    try:
        await runner.start()
    finally:
        for task in beside:
            task.cancel()


async def _mirror(config: PipelineConfig) -> None:
    from flows.config.job_files import alerts_of
    from infra.alerts.prefect_events import mirror_alerts

    while True:
        try:
            await asyncio.to_thread(mirror_alerts, config.places, alerts_of(config))
        except Exception:  # the runs must go on, whatever the mirror ran into
            log.exception("alerts could not be mirrored; trying again")
        await asyncio.sleep(MIRROR_SECONDS)


async def _trace(config: PipelineConfig) -> None:
    from flows.serving.trace_export import send_traces

    while config.traces.share > 0:
        try:
            sent = await asyncio.to_thread(send_traces, config.places, config.pipeline, config.traces)
        except Exception:  # the runs must go on; what was not sent is sent later
            log.exception("interactions could not be shown as traces; trying again")
            sent = {}
        # Without a pause while there is more than one lot.
        await asyncio.sleep(0.1 if sent.get("interactions") else TRACE_SECONDS)


async def _recover(config: PipelineConfig) -> None:
    recovery = CrashRecovery(config)
    while True:
        try:
            await asyncio.to_thread(recovery.look)
        except Exception:  # the runs must go on; the next look may succeed
            log.exception("could not look for nights whose process crashed; trying again")
        await asyncio.sleep(LOOK_SECONDS)


def main(argv: list[str]) -> int:
    """``python -m flows.serving.server serve.json``"""

    def run(job: ServeJob) -> None:
        config = load_config(job.config)
        # Made outside the event loop: inside, Prefect hands back coroutines instead.
        asyncio.run(serve(job, config, deployments(config, job.config)))

    return job_main("deployments", argv, ServeJob, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
