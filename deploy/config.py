"""Configure serving: the job files of engine and gateway, and the part of both that a person sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from deploy.canary.policy import CanaryPolicy
from infra.processes.threads import physical_cores, serving_threads
from infra.settings import Config

ENGINE_KEY = "RATCHET_ENGINE_KEY"
UPSTREAM_KEY = "RATCHET_UPSTREAM_KEY"


class ServingConfig(Config):
    """The `serving` section of a pipeline's config."""

    engine: str = "embedded"
    """Serving engine. embedded: our own process (transformers). vllm: a vLLM server that you run, at `engine_url`."""
    engine_url: str | None = None
    """Address of the engine. Default: the embedded engine on this machine."""
    replicas: tuple[str, ...] = ()
    """Addresses of further engines of the same kind over the same base; requests go to the least busy one."""
    upstream_url: str | None = None
    """OpenAI-compatible server that you already run (up to and including /v1): it stays the champion. Ratchet captures
    its answers and the feedback on them; versions of Ratchet answer in shadow only, unseen. Its key is read from
    RATCHET_UPSTREAM_KEY."""
    upstream_model: str | None = None
    """What `upstream_url` calls its model."""
    base_model_name: str | None = None
    """What the engine calls the base model (vLLM's --served-model-name). Default: the base's version name."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numerics of the embedded engine; auto: bfloat16 where the GPU, or without one the CPU, multiplies it fast."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the embedded engine. Default: half of the cores that its process may use, at least one."""
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
    gateways: int = Field(default=1, ge=1)
    """Gateways that share the traffic over one database; each lets its part of `requests_per_minute` through."""
    poll_seconds: float = Field(default=0.25, gt=0, le=0.5)
    """How often gateways look at the ledger: a release or rollback is followed within this time."""
    request_seconds: float = Field(default=300.0, gt=0)
    """Longest time the gateway waits for the engine to say anything more."""
    max_loaded: int = Field(default=64, ge=2)
    """Versions kept loaded in each engine; beyond it the least recently used go, never one that may be routed to."""
    max_shadows: int = Field(default=4, ge=0)
    """Copies of requests that a version in shadow answers at the same time; further ones are not copied."""
    spool_max_bytes: int = Field(default=268_435_456, ge=0)
    """Most bytes of interactions kept on the gateway's own disk while the database is away; then answers get 503."""
    offline_keys_seconds: float = Field(default=600.0, ge=0)
    """How long API keys are believed while the database is away; one that is revoked meanwhile is believed too."""
    database_seconds: float = Field(default=5.0, gt=0)
    """How long a gateway waits for its database. Beyond it answers are kept in the spool, feedback gets 503 with
    Retry-After, and the database counts as away."""
    parity_tolerance: float | None = Field(default=None, gt=0)
    """Largest relative error of a version's effect, engine against record. Default: by engine and dtype."""

    @model_validator(mode="before")
    @classmethod
    def _without_what_was_removed(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "mlflow_hook_url" not in data:
            return data
        if data["mlflow_hook_url"] is not None:
            raise ValueError(
                "`mlflow_hook_url` was removed: the controller looks at MLflow's aliases every five seconds; "
                "take it out, and the webhook at MLflow too"
            )
        return {name: value for name, value in data.items() if name != "mlflow_hook_url"}

    @model_validator(mode="after")
    def _consistent(self) -> ServingConfig:
        if (self.upstream_url is None) != (self.upstream_model is None):
            raise ValueError(
                f"upstream_url {self.upstream_url!r} and upstream_model {self.upstream_model!r} belong together; "
                "set both, or neither"
            )
        if self.replicas and self.engine_url is None:
            raise ValueError("replicas needs engine_url, the address of the first engine; set it")
        return self

    @property
    def upstream_version(self) -> str | None:
        """Under what name the answers of `upstream_url` are kept; None without one."""
        return f"upstream:{self.upstream_model}" if self.upstream_model else None

    def compute_threads(self) -> int:
        """Return the threads that the embedded engine computes with on this machine."""
        return self.threads or serving_threads(physical_cores())


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
    spool_dir: Path | None = None
    """Folder for interactions while the database is away, one for each gateway. Default: beside `versions_dir`, by
    port."""
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
    lease_seconds: float = Field(default=15.0, gt=0)
    """Routing that could not be read for so long is too old to answer by, unless the whole database is away."""
    console: ConsoleJob | None = None
    """The console under /console; None: the gateway serves none."""

    @property
    def spool(self) -> Path:
        """`spool_dir`, or its default."""
        return self.spool_dir or self.versions_dir.parent / f"spool-{self.port}"

    @property
    def engine_urls(self) -> tuple[str, ...]:
        """Addresses of all engines."""
        return (self.engine_url, *self.serving.replicas)
