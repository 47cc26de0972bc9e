"""Alert when complaints about a champion rise that no other version is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.canary.units import frozen_before
from deploy.controller.alert_once import alert_once
from deploy.ledger.ledger import current
from feedback.store.rated_units import RatedUnit
from feedback.store.store import Store
from infra.alerts.outbox import Alert
from infra.database.connect import now


def watch_quality(database: Engine, tenant: str, policy: CanaryPolicy, *, at: datetime | None = None) -> bool:
    """Alert when the latest users of a champion that nobody is compared with complain far more than its earlier ones.

    Without a concurrent comparison a change of mood cannot be told from a change of quality, so nothing goes back.
    """
    state = current(database, tenant)
    if state.watch is not None or state.champion is None:
        return False
    at, size = at or now(), policy.incident_units
    rows = Store(database).rated_units(tenant, state.champion_seq, window_s=policy.window_seconds)
    rows = sorted((row for row in rows if row.first_seen <= frozen_before(policy, at)), key=lambda row: row.first_seen)
    if len(rows) < 3 * size:
        return False
    latest, earlier = complaint_rate(rows[-size:]), complaint_rate(rows[:-size])
    if latest < earlier + policy.incident_rise:
        return False
    alert = Alert(
        kind="quality_drift",
        severity="warning",
        tenant=tenant,
        title=f"complaints about {state.champion} rise",
        text=f"{latest:.0%} of the latest {size} rated users complain, {earlier:.0%} did before. No other version "
        "answers beside it, so this may be the users' mood: nothing is taken back.",
        next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
        payload={"latest": latest, "earlier": earlier},
        dedupe_key=f"quality_drift/{tenant}/{state.champion_seq}/{at:%Y-%m-%d}",
    )
    return alert_once(database, alert)


def complaint_rate(rows: Sequence[RatedUnit]) -> float:
    """Return the share of rated units that complain."""
    return float(sum(row.score < 0.5 for row in rows) / len(rows))
