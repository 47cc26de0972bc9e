"""Define the base class of configs, and the places where things are kept on this machine.

Literals are identity, places are not: nothing from `Places` may ever enter a key (see infra/artifact.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.errors import UserError


class Config(BaseModel):
    """Frozen, strict about unknown keys; the docstring under each field is its help text everywhere."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        # What people said is kept in such models too, and errors end in logs. `in_a_line` tells the input of a config.
        hide_input_in_errors=True,
    )


def in_a_line(error: ValidationError) -> str:
    """Describe a validation error in one line: where, what is wrong, what was got."""
    wrong = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        got = repr(item["input"])
        why = "unknown" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        wrong.append(f"{where + ': ' if where else ''}{why}, got {got if len(got) <= 60 else got[:57] + '...'}")
    return "; ".join(wrong)


DATABASE_VARIABLE = "RATCHET_DATABASE_URL"


class Places(Config):
    """Where state is kept and where servers listen. Never part of an identity."""

    home: Path = Path(".ratchet")
    """Folder for everything this pipeline writes. Relative paths count from the config file's folder."""

    cache: Path = Path("~/.cache/ratchet")
    """Folder for converted base models, shared by all pipelines of this machine."""

    database_url: str | None = None
    """SQLAlchemy URL of the store, ledger and outbox. Default: RATCHET_DATABASE_URL where the environment has it (a URL
    with a password belongs there), else SQLite (WAL) in `home`."""

    lake_url: str | None = Field(default=None, pattern=r"^s3a?://[^/]+/.+")
    """Where the lake's tables and manifests are kept: s3://bucket/folder (extra `s3`; address and keys come from the
    AWS_ variables of the environment). What only the writer needs (lock, staged batch, index of the past) stays in
    `home`, and that folder is remembered as the only writer. Default: `home`."""

    host: str = "127.0.0.1"
    """Address all local servers bind to. Loopback unless you know why not."""

    gateway_port: int = Field(default=8600, ge=1, le=65535)
    """Port of the OpenAI-compatible gateway."""

    engine_port: int = Field(default=8601, ge=1, le=65535)
    """Port of the embedded engine."""

    prefect_port: int = Field(default=4260, ge=1, le=65535)
    """Port of the local Prefect server."""

    mlflow_port: int = Field(default=5060, ge=1, le=65535)
    """Port of the local MLflow server."""

    mlflow_url: str | None = None
    """URL of an MLflow server you already run. Default: the local one."""

    prefect_api_url: str | None = None
    """API URL of a Prefect server you already run. Default: the local one."""

    @property
    def home_dir(self) -> Path:
        """`home`, absolute."""
        return self.home.expanduser().absolute()

    @property
    def cache_dir(self) -> Path:
        """`cache`, absolute."""
        return self.cache.expanduser().absolute()

    @property
    def database(self) -> str:
        """The SQLAlchemy URL to connect to; one from the environment is only named here, so that no file keeps it."""
        if self.database_url is None and os.environ.get(DATABASE_VARIABLE):
            return f"env:{DATABASE_VARIABLE}"
        return self.database_url or f"sqlite:///{self.home_dir / 'ratchet.db'}"

    @property
    def lake_dir(self) -> Path:
        return self.home_dir / "lake"

    @property
    def snapshots_dir(self) -> Path:
        return self.home_dir / "snapshots"

    @property
    def stages_dir(self) -> Path:
        return self.home_dir / "stages"

    @property
    def versions_dir(self) -> Path:
        return self.home_dir / "versions"

    @property
    def evaluations_dir(self) -> Path:
        return self.home_dir / "evaluations"

    @property
    def nights_dir(self) -> Path:
        return self.home_dir / "nights"

    @property
    def logs_dir(self) -> Path:
        return self.home_dir / "logs"

    @property
    def run_dir(self) -> Path:
        return self.home_dir / "run"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def engine_url(self) -> str:
        return f"http://{self.host}:{self.engine_port}"

    @property
    def mlflow(self) -> str:
        """URL of the MLflow server to use."""
        return self.mlflow_url or f"http://{self.host}:{self.mlflow_port}"

    @property
    def prefect_api(self) -> str:
        """API URL of the Prefect server to use."""
        return self.prefect_api_url or f"http://{self.host}:{self.prefect_port}/api"


def secret(name: str) -> str:
    """Read a secret from environment variable `name`: secrets come from the environment only, never from a config file.

    Raises:
        UserError: it is not set.
    """
    value = os.environ.get(name)
    if not value:
        raise UserError(f"environment variable {name} is not set; export it, or let `ratchet up` make one")
    return value
