"""Which servers `ratchet up` runs for a pipeline: what production has, in its embedded form."""

from __future__ import annotations

import sys

from flows.config import PipelineConfig
from flows.prefect_settings import prefect_environment
from infra.stack import ProcessSpec, StackPlan


def stack_plan(config: PipelineConfig) -> StackPlan:
    """The parts in start order. A server that the config names by URL is somebody else's, and is not started."""
    places = config.places
    parts: list[ProcessSpec] = []
    if places.prefect_api_url is None:
        parts.append(_prefect(config))
    if places.mlflow_url is None:
        parts.append(_mlflow(config))
    return StackPlan(run_dir=places.run_dir, log_file=places.logs_dir / "stack.log", processes=tuple(parts))


def _prefect(config: PipelineConfig) -> ProcessSpec:
    places = config.places
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
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{places.home_dir / 'prefect' / 'prefect.db'}",
        },
        host=places.host,
        port=places.prefect_port,
        health_url=f"{places.prefect_api}/health",
        log_file=places.logs_dir / "prefect.log",
        ready_seconds=180,
    )


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
            # One worker, no job runners: two processes instead of ten.
            *("--workers", "1"),
        ),
        env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        host=places.host,
        port=places.mlflow_port,
        health_url=f"{places.mlflow}/health",
        log_file=places.logs_dir / "mlflow.log",
        ready_seconds=240,
    )
