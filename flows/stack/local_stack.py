"""List the servers that `ratchet up` runs for a pipeline: what production has, in its embedded form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.job_files import controller_job, engine_job, gateway_job
from flows.config.pipeline import PipelineConfig
from flows.config.prefect_environment import prefect_environment
from infra.artifact import atomic_write
from infra.processes.stack import ProcessSpec, StackPlan
from infra.processes.threads import thread_environment
from infra.settings import Config, Places
from infra.source_tree import SOURCE_ROOT

if TYPE_CHECKING:
    from training.base_model import Base


def stack_plan(config: PipelineConfig, config_file: Path, base: Base) -> StackPlan:
    """The parts in start order. A server that the config names by URL is somebody else's, and is not started."""
    places = config.places
    parts: list[ProcessSpec] = []
    if places.prefect_api_url is None:
        parts.append(_prefect(config))
    if places.mlflow_url is None:
        parts.append(_mlflow(config))
    if config.serving.engine_url is None:
        parts.append(_engine(config, base))
    parts.append(_gateway(config, base))
    parts.append(_controller(config, base))
    parts.append(_deployments(config, config_file))
    return StackPlan(run_dir=places.run_dir, log_file=places.logs_dir / "stack.log", processes=tuple(parts))


OWN_PARTS = ("engine", "gateway", "controller", "deployments")
"""Our own servers, as `ratchet serve` names them."""


def part_spec(part: str, config: PipelineConfig, config_file: Path, base: Base) -> ProcessSpec:
    """One of our own servers, also where the config names it by URL for the others."""
    if part == "engine":
        return _engine(config, base)
    if part == "gateway":
        return _gateway(config, base)
    return _controller(config, base) if part == "controller" else _deployments(config, config_file)


def _prefect(config: PipelineConfig) -> ProcessSpec:
    places = config.places
    store = places.home_dir / "prefect"
    store.mkdir(parents=True, exist_ok=True)
    return ProcessSpec(
        name="prefect",
        argv=(
            *(sys.executable, "-m", "prefect", "server", "start"),
            *("--host", places.host, "--port", str(places.prefect_port)),
        ),
        env={
            **prefect_environment(config),
            # Without it the page in the browser calls port 4200, whatever port the server has.
            "PREFECT_SERVER_UI_API_URL": places.prefect_api,
            # By default any web page that the operator opens may talk to it.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_origins(places)),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{store / 'prefect.db'}",
            # In memory, as it is by default, a restart of this server would end the runs that hold a slot.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        },
        host=places.host,
        port=places.prefect_port,
        health_url=f"{places.prefect_api}/health",
        log_file=places.logs_dir / "prefect.log",
        ready_seconds=_PATIENCE,
    )


def _origins(places: Places) -> list[str]:
    """Where the server's own pages are opened from."""
    hosts = [places.host, "localhost"] if places.host == "127.0.0.1" else [places.host]
    return [f"http://{host}:{places.prefect_port}" for host in hosts]


def _mlflow(config: PipelineConfig) -> ProcessSpec:
    places = config.places
    store = places.home_dir / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    return ProcessSpec(
        name="mlflow",
        argv=(
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", places.host, "--port", str(places.mlflow_port)),
            *("--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"),
            *("--artifacts-destination", str(store / "artifacts")),
            *("--app-name", "basic-auth"),
            # One worker, no job runners: two processes instead of ten.
            *("--workers", "1"),
        ),
        env={
            "MLFLOW_AUTH_CONFIG_PATH": str(_who_may(store)),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        host=places.host,
        port=places.mlflow_port,
        health_url=f"{places.mlflow}/health",
        log_file=places.logs_dir / "mlflow.log",
        ready_seconds=_PATIENCE,
    )


def _who_may(store: Path) -> Path:
    """MLflow's file of who may do what. User and password of the one who may write come by the environment."""
    users = f"sqlite:///{store / 'users.db'}".replace("%", "%%")  # a sign of this kind of file
    file = store / "auth.ini"
    lines = (
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = {users}",
        # Checking a password costs as much as a request, and its only worker is told of every change.
        "auth_cache_ttl_seconds = 60",
    )
    atomic_write(file, "\n".join(lines) + "\n")
    return file


def _engine(config: PipelineConfig, base: Base) -> ProcessSpec:
    places = config.places
    return ProcessSpec(
        name="engine",
        argv=_own("deploy.engines.embedded", places.run_dir / "engine.job.json", engine_job(config, base)),
        env={**_OURS, **thread_environment(config.serving.compute_threads()), "HF_HUB_OFFLINE": "1"},
        host=places.host,
        port=places.engine_port,
        health_url=f"{places.engine_url}/health",
        log_file=places.logs_dir / "engine.log",
        ready_seconds=_PATIENCE,
    )


def _gateway(config: PipelineConfig, base: Base) -> ProcessSpec:
    places = config.places
    return ProcessSpec(
        name="gateway",
        argv=_own("deploy.gateway", places.run_dir / "gateway.job.json", gateway_job(config, base)),
        env=_OURS,
        host=places.host,
        port=places.gateway_port,
        health_url=f"{places.gateway_url}/readyz",
        log_file=places.logs_dir / "gateway.log",
        ready_seconds=_PATIENCE,
        stop_seconds=35,
        # It refuses requests while its engine loads; whoever waits for `up` means to send some.
        after=("engine",) if config.serving.engine_url is None else (),
    )


def _controller(config: PipelineConfig, base: Base) -> ProcessSpec:
    places = config.places
    return ProcessSpec(
        name="controller",
        argv=_own("deploy.controller", places.run_dir / "controller.job.json", controller_job(config, base)),
        env=_OURS,
        log_file=places.logs_dir / "controller.log",
    )


def _deployments(config: PipelineConfig, config_file: Path) -> ProcessSpec:
    from flows.serving.server import ServeJob

    places = config.places
    ready = places.run_dir / "deployments.ready"
    return ProcessSpec(
        name="deployments",
        argv=_own(
            "flows.serving.server",
            places.run_dir / "deployments.job.json",
            ServeJob(config=config_file.absolute(), ready_file=ready),
        ),
        env={**_OURS, **prefect_environment(config)},
        ready_file=ready,
        log_file=places.logs_dir / "deployments.log",
        ready_seconds=_PATIENCE,
        after=("prefect",) if places.prefect_api_url is None else (),
    )


# A server that is starting on a machine with other things to do is left its time; one that ends is seen at once.
_PATIENCE = 600.0

# Our own modules are found wherever the command was started.
_OURS = {"PYTHONPATH": str(SOURCE_ROOT), "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


def _own(module: str, file: Path, job: Config) -> tuple[str, ...]:
    """Command line of one of our processes, its job file written."""
    atomic_write(file, job.model_dump_json(indent=2))
    return (sys.executable, "-m", module, str(file))
