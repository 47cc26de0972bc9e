"""Define what a person may ask of a rollback: the parameters of the Prefect form and of `ratchet run rollback`."""

from __future__ import annotations

from pydantic import Field

from infra.settings import Config


class RollbackRequest(Config):
    """Take the live version (or the canary) back."""

    reason: str = Field(min_length=3, max_length=500)
    """Why; it stands in the ledger for ever."""
    actor: str = Field(default="operator", min_length=1)
    """Who decides."""
    to: str | None = None
    """Version to go back to; empty: the champion for a canary, else the last good champion."""
    tenant: str | None = None
    """Tenant; may be left empty when the pipeline has one only."""
