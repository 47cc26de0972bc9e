"""Summarise a tenant's release: what is live, since when and why, and how its open watch was last judged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import field_serializer
from sqlalchemy import Engine

from deploy.canary.assess import Assessment
from deploy.canary.last_assessment import last_assessment
from deploy.ledger.ledger import Entry, current, history
from infra.database.connect import now
from infra.settings import Config


class ReleaseSummary(Config):
    """What `ratchet status` and the watch flow show of one tenant."""

    champion: str | None
    """The live version."""
    since: datetime | None
    """When it became champion."""
    why: str
    """Reason of the ledger entry that made it champion."""
    by: str | None
    """Who wrote that entry."""
    previous: str | None
    canary: str | None
    canary_share: float
    """Share of new users that get the canary."""
    holdback: str | None
    barred: Mapping[str, str]
    """Version -> why it may not be released again."""
    paused: bool
    """Whether releases by the nightly run are paused now."""
    watch: Assessment | None
    """The last judgement of the open watch."""
    last_line: Entry | None
    """The ledger's newest entry."""

    @field_serializer("since")
    def _iso(self, at: datetime | None) -> str | None:
        return at.isoformat() if at else None


class WatchReport(Config):
    """What the watch flow reports."""

    tenants: Mapping[str, ReleaseSummary]
    controller: Literal["alive", "silent"]
    ingestion: str
    """Why feedback waits, or that it does not."""


def summarise_release(database: Engine, tenant: str) -> ReleaseSummary:
    """Read what is live for a tenant from the ledger and the watch."""
    state, entries = current(database, tenant), history(database, tenant)
    cause = next((entry for entry in reversed(entries) if entry.seq == state.champion_seq), None)
    judged = last_assessment(database, tenant)
    return ReleaseSummary(
        champion=state.champion,
        since=state.since,
        why=cause.reason if cause else "nothing was ever released; the first night makes the base model the champion",
        by=cause.actor if cause else None,
        previous=state.previous,
        canary=state.canary,
        canary_share=state.canary_share,
        holdback=state.holdback,
        barred=dict(state.barred),
        paused=state.paused_at(now()),
        watch=judged[0] if judged and state.watch else None,
        last_line=entries[-1] if entries else None,
    )
