"""What serving is told: one config for the engine, one for the gateway, and the part of both that a person sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from deploy.canary_policy import CanaryPolicy
from infra.settings import Config

ENGINE_KEY = "RATCHET_ENGINE_KEY"
USER_SALT = "RATCHET_USER_SALT"


class ServingConfig(Config):
    """The `serving` section of a pipeline's config."""

    engine: Literal["embedded", "vllm"] = "embedded"
    """embedded: our own process (transformers). vllm: a vLLM server that you run, at `engine_url`."""
    engine_url: str | None = None
    """Address of the engine. Default: the embedded engine on this machine."""
    base_model_name: str | None = None
    """What the engine calls the base model (vLLM's --served-model-name). Default: the base's version name."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numerics of the embedded engine; auto: bfloat16 where the CPU multiplies it fast."""
    threads: int = Field(default=2, ge=1)
    """CPU threads of the embedded engine."""
    max_batch: int = Field(default=32, ge=1)
    """Most requests answered in one pass."""
    max_waiting: int = Field(default=128, ge=0)
    """Requests that may wait beyond `max_batch`; further ones get 429 with Retry-After."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    """Largest request body; a larger one gets 413."""
    max_tokens: int = Field(default=512, ge=1)
    """Answer length where the client names none."""
    requests_per_minute: int = Field(default=6000, ge=1)
    """Requests one API key may send a minute; further ones get 429 with Retry-After."""
    poll_seconds: float = Field(default=0.25, gt=0, le=0.5)
    """How often gateways look at the ledger: a release or rollback is followed within this time."""
    request_seconds: float = Field(default=300.0, gt=0)
    """Longest time the gateway waits for the engine to say anything more."""
    parity_tolerance: float | None = Field(default=None, gt=0)
    """Largest relative error of a version's effect, engine against record. Default: by engine and dtype."""


class EngineJob(Config):
    """The one file of `python -m deploy.engines.embedded engine.json`."""

    base_path: Path
    """Folder of the base model."""
    base_name: str
    """Name under which the untouched base is served: its version name."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    serving: ServingConfig = ServingConfig()
    """Numerics and limits."""


class ConsoleJob(Config):
    """What the console's page is told."""

    home: Path
    """Folder of everything the pipeline writes: nights, scorecards, lake and snapshots are read there."""
    links: Mapping[str, str] = {}
    """Label -> address of the other pages (MLflow, Prefect)."""
    canary: CanaryPolicy = CanaryPolicy()
    """Policy of watches whose ledger line states none."""
    pause_seconds: float | None = None
    """How long nights release nothing after a rollback; None: until a person resumes."""


class GatewayJob(Config):
    """The one file of `python -m deploy.gateway gateway.json`."""

    pipeline: str = "default"
    """Model name that clients ask for; "champion" is understood too."""
    tenant: str = "default"
    """Tenant whose champion also serves tenants that have no release of their own."""
    database_url: str
    """SQLAlchemy URL of store, ledger and keys."""
    versions_dir: Path
    """Folder of versions, as the engine sees it too."""
    base_name: str
    """Version name of the untouched base."""
    engine_url: str
    """Address of the engine."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    serving: ServingConfig = ServingConfig()
    """Limits."""
    console: ConsoleJob | None = None
    """The console under /console; None: the gateway serves none."""
