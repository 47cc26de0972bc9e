"""State what a controller works on: its job file."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from deploy.canary.policy import CanaryPolicy
from evaluation.judges.config import JudgeConfig
from infra.alerts.config import AlertsConfig
from infra.settings import Config


class ControllerJob(Config):
    """The one file of `python -m deploy.controller controller.json`."""

    database_url: str
    """SQLAlchemy URL of store, ledger and outbox."""
    versions_dir: Path
    """Folder of versions, as the engine sees it too."""
    base_version: str
    """Version name of the untouched base: the first champion of `tenants`."""
    base_path: Path | None = None
    """Folder of the base; with it, versions are published in the words of engines that know only LoRA, too."""
    tenants: tuple[str, ...] = ("default",)
    """Tenants that get the base as their first champion; others are found in the ledger. The first one's champion also
    serves tenants without one of their own."""
    engine_url: str | None = None
    """Address of the engine, where versions are loaded and proved; None: releases asked for in MLflow are put back."""
    replicas: tuple[str, ...] = ()
    """Addresses of further engines of the same kind; a version is proved in all of them."""
    engine: str = "embedded"
    """The serving engine's name in `SERVING_ENGINES`."""
    engine_base_name: str | None = None
    """What the engine calls the base. Default: `base_version`."""
    parity_tolerance: float | None = Field(default=None, gt=0)
    """Largest relative error of a version's effect, engine against record. Default: by engine and dtype."""
    canary: CanaryPolicy = CanaryPolicy()
    """How releases are watched, where the ledger does not say it of one."""
    alerts: AlertsConfig = AlertsConfig()
    """Where alerts go."""
    judges: tuple[JudgeConfig, ...] = ()
    """Judges of the evaluation: the first that needs no reference is asked after ratings sent a version back."""
    judge_cache: Path | None = None
    """Folder where a judge's answers are kept by content. Default: beside `versions_dir`."""
    shadow_only: bool = False
    """Whether an endpoint outside of Ratchet is champion: then versions in shadow stay there."""
    mlflow_url: str | None = None
    """MLflow server whose registry follows the ledger; None: none does."""
    mlflow_model: str = "ratchet"
    """Registered model of the tenant "default"; other tenants have "<this>--<tenant>"."""
    poll_seconds: float = Field(default=1.0, gt=0)
    """Wait between two looks at the watches, and between two deliveries of alerts."""
    registry_seconds: float = Field(default=5.0, gt=0)
    """Wait between two looks at MLflow."""
    holder: str = Field(default_factory=lambda: f"controller@{socket.gethostname()}")
    """Name under which it holds leases; the same after a restart, so that it goes on at once."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_release(cls, data: Any) -> Any:
        # The file of a stack that was started by 0.1.0 holds it; there is no webhook any more, only the poll.
        if isinstance(data, Mapping):
            return {name: value for name, value in data.items() if name != "mlflow_hook_url"}
        return data

    @property
    def judge_cache_dir(self) -> Path:
        """`judge_cache`, or its default."""
        return self.judge_cache or self.versions_dir.parent / "judge-cache"
