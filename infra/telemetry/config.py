"""Configure the export of interactions to MLflow as traces; apart from its code, so that reading it imports little."""

from __future__ import annotations

from pydantic import Field

from infra.settings import Config


class TracesConfig(Config):
    """Interactions as MLflow traces with what was said of them. The store keeps everything; these are for looking."""

    share: float = Field(default=0.0, ge=0, le=1)
    """Share of interactions that is sent, chosen by the hash of their ids; 0 sends none. Texts are sent as they were
    captured, before redaction: give MLflow's readers no more than they may see."""
    lot: int = Field(default=200, ge=1, le=1_000)
    """Most traces in one request."""
