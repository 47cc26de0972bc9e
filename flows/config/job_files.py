"""Make the job files of the serving processes from the pipeline's config. Secrets are not in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.config import ConsoleJob, EngineJob, GatewayJob
from flows.config.pipeline import PipelineConfig
from infra.alerts.config import AlertsConfig

if TYPE_CHECKING:
    from deploy.controller.job import ControllerJob
    from training.base_model import Base


def engine_job(config: PipelineConfig, base: Base) -> EngineJob:
    """For `python -m deploy.engines.embedded`."""
    return EngineJob(
        base_path=base.path,
        base_name=base.version,
        host=config.places.host,
        port=config.places.engine_port,
        serving=config.serving,
    )


def gateway_job(config: PipelineConfig, base: Base) -> GatewayJob:
    """For `python -m deploy.gateway`."""
    return GatewayJob(
        pipeline=config.pipeline,
        tenant=config.tenants[0],
        database_url=config.places.database,
        versions_dir=config.places.versions_dir,
        base_name=base.version,
        engine_url=engine_url(config),
        host=config.places.host,
        port=config.places.gateway_port,
        serving=config.serving,
        lease_seconds=config.canary.lease_seconds,
        console=ConsoleJob(
            home=config.places.home_dir,
            links={"MLflow": config.places.mlflow, "Prefect": config.places.prefect_api.removesuffix("/api")},
            canary=config.canary,
            pause_seconds=config.canary.pause_seconds,
        ),
    )


def controller_job(config: PipelineConfig, base: Base) -> ControllerJob:
    """For `python -m deploy.controller`, and for whoever else must prove a version in the engine."""
    from deploy.controller.job import ControllerJob

    return ControllerJob(
        database_url=config.places.database,
        versions_dir=config.places.versions_dir,
        base_version=base.version,
        base_path=base.path,
        tenants=config.tenants,
        engine_url=engine_url(config),
        replicas=config.serving.replicas,
        engine=config.serving.engine,
        engine_base_name=config.serving.base_model_name,
        parity_tolerance=config.serving.parity_tolerance,
        canary=config.canary,
        alerts=alerts_of(config),
        judges=config.evaluation.judges,
        judge_cache=config.places.home_dir / "judge-cache",
        shadow_only=config.serving.upstream_url is not None,
        mlflow_url=config.places.mlflow,
        mlflow_model=config.pipeline,
    )


def alerts_of(config: PipelineConfig) -> AlertsConfig:
    """Where alerts go, with the console's address in them."""
    here = config.alerts.console_url or f"{config.places.gateway_url}/console"
    return config.alerts.model_copy(update={"console_url": here})


def engine_url(config: PipelineConfig) -> str:
    """Address of the engine: the one the config names, else the local one."""
    return config.serving.engine_url or config.places.engine_url
