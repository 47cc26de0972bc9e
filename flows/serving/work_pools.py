"""Register the deployments on a Prefect work pool: workers then place the runs (process, Docker, Kubernetes).

    ratchet deploy --pool gpu --type kubernetes --image registry.example/ratchet:1.4

The runs import our packages by module, so a worker needs them installed (process) or in the image (the others).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.config.pipeline import PipelineConfig
from flows.config.prefect_environment import prefect_environment
from flows.serving.plans import deployment_plans
from infra.errors import UserError
from infra.settings import Config
from infra.source_tree import SOURCE_ROOT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PoolType = Literal["process", "docker", "kubernetes"]
_EXTRA = {"docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}


class Registered(Config):
    """Deployments on a work pool."""

    pool: str
    type: PoolType
    made: bool
    """Whether the pool was not there."""
    deployments: Mapping[str, str]
    """Name to Prefect's id."""
    worker: str
    """The command that starts a worker."""


def deploy(
    config: PipelineConfig, config_file: Path, *, pool: str, kind: PoolType, image: str | None = None
) -> Registered:
    """Make the pool if it is not there, and register every deployment on it. Doing it again updates them.

    Raises:
        UserError: the pool exists with another type, or a pool that starts containers is given no image.
    """
    from prefect.client.orchestration import get_client

    from flows.serving.server import prefect_deployment

    if kind != "process" and image is None:
        raise UserError(f"a {kind} pool runs containers; name their image with --image")
    if kind == "process" and image is not None:
        raise UserError(f"a process pool runs no containers, got the image {image!r}; leave --image out")
    with get_client(sync_client=True) as client:
        made = _pool(client, pool, kind)
    # In a container the config lies where the image or a volume puts it; here it is a file of this machine.
    file = config_file.absolute() if kind == "process" else config_file
    registered = {}
    for plan in deployment_plans(config, file):
        deployment = prefect_deployment(plan, job_variables=job_variables(config, kind, image))
        registered[f"{plan.flow}/{plan.name}"] = str(deployment.apply(work_pool_name=pool))
    return Registered(pool=pool, type=kind, made=made, deployments=registered, worker=worker_command(pool, kind))


def job_variables(config: PipelineConfig, kind: PoolType, image: str | None) -> dict[str, Any]:
    """Return what the worker gives every run's process or container: how to reach Prefect; never a secret."""
    environment: Mapping[str, str] = prefect_environment(config)
    if kind == "process":
        return {"env": {**environment, "PYTHONPATH": str(SOURCE_ROOT)}, "working_dir": str(SOURCE_ROOT)}
    inside = {name: value for name, value in environment.items() if name != "PREFECT_HOME"}
    return {"env": inside, "image": image}


def worker_command(pool: str, kind: PoolType) -> str:
    """Return the command that starts a worker, with the package it needs."""
    start = f"{Path(sys.executable).name} -m prefect worker start --pool {pool}"
    return start if kind not in _EXTRA else f"pip install {_EXTRA[kind]} && {start}"


def _pool(client: SyncPrefectClient, name: str, kind: PoolType) -> bool:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind))
        return True
    if pool.type != kind:
        raise UserError(f"the work pool {name!r} has the type {pool.type}, expected {kind}; give another name")
    return False
