"""Show releases on the console (what is live, the ledger), and roll back or resume from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from deploy.canary.assess import Assessment
from deploy.controller.heartbeat import last_beats
from deploy.controller.summary import summarise_release
from deploy.ledger.evidence import Prove
from deploy.ledger.ledger import Entry, current, history
from deploy.release.manual_controls import resume
from deploy.release.rollback import roll_back_from
from infra.alerts.outbox import StoredAlert, list_alerts
from infra.database.connect import now
from infra.errors import Conflict
from infra.settings import Config

if TYPE_CHECKING:
    from deploy.gateway.console.mount import TakeBack


class SentAlert(Config):
    """An alert of the outbox, and where it arrived."""

    alert_id: str
    kind: str
    severity: str
    title: str
    text: str
    next_step: str
    at: str
    """When it was written (ISO 8601)."""
    delivered: tuple[str, ...]
    """Receivers that took it."""
    failing: Mapping[str, str]
    """Receiver to why it did not."""


class Live(Config):
    """What is live, since when and why; what happened lately; who watches."""

    now: str
    seq: int
    """Ledger place of the last entry."""
    champion: str | None
    since: str | None
    by: str | None
    why: str
    previous: str | None
    base: str | None
    canary: str | None
    canary_share: float
    holdback: str | None
    barred: Mapping[str, str]
    """Version to why it may not be released again."""
    paused: bool
    judged: Assessment | None
    """The last judgement of the open watch."""
    controller_seen: str | None
    """When the controller last gave a sign of life (ISO 8601)."""
    alerts: tuple[SentAlert, ...]


class Ledger(Config):
    """The ledger, newest entry first, and where a rollback would go."""

    seq: int
    champion: str | None
    canary: str | None
    previous: str | None
    base: str | None
    paused: bool
    can_roll_back: bool
    lines: tuple[Entry, ...]


def live(database: Engine, tenant: str) -> Live:
    """Summarise a tenant's release, the last judgement of its watch, alerts, and the controller's sign of life."""
    state, summary = current(database, tenant), summarise_release(database, tenant)
    beats = [beat.at for beat in last_beats(database).values()]
    never = "nothing was ever released: the first night makes the base model the champion"
    return Live(
        now=now().isoformat(),
        seq=state.seq,
        base=state.base,
        **summary.model_dump(exclude={"why", "watch", "last_line"}),
        why=summary.why if summary.by is not None else never,
        judged=summary.watch,
        controller_seen=max(beats).isoformat() if beats else None,
        alerts=tuple(_sent(alert) for alert in list_alerts(database, tenant=tenant, limit=20)),
    )


def _sent(alert: StoredAlert) -> SentAlert:
    return SentAlert(
        alert_id=alert.alert_id,
        kind=alert.kind,
        severity=alert.severity,
        title=alert.title,
        text=alert.text,
        next_step=alert.next_step,
        at=alert.created_at.isoformat(),
        delivered=alert.delivered,
        failing=alert.failing,
    )


def ledger(database: Engine, tenant: str) -> Ledger:
    """Read the ledger, newest entry first, and say whether a rollback leads anywhere."""
    state = current(database, tenant)
    return Ledger(
        seq=state.seq,
        champion=state.champion,
        canary=state.canary,
        previous=state.previous,
        base=state.base,
        paused=state.paused_at(now()),
        can_roll_back=state.champion is not None and bool(state.canary or state.champion != state.base),
        lines=tuple(reversed(history(database, tenant))),
    )


def take_back(
    database: Engine,
    key: ApiKey,
    request: TakeBack,
    pause_seconds: float | None,
    prove: Prove,
) -> Entry:
    """Roll back what stood when the person decided.

    Raises:
        Conflict: the ledger moved since the person looked.
        RefusedTransition: there is nothing to take back, or the target is refused.
    """
    state = current(database, key.tenant)
    if state.seq != request.expected_seq:
        raise Conflict(
            f"the ledger moved on to line {state.seq} while you looked at line {request.expected_seq}; "
            "look again and decide anew"
        )
    return roll_back_from(
        database,
        state,
        to=request.to,
        actor=f"console:{key.name}",
        reason=request.reason,
        pause_seconds=pause_seconds,
        prove=prove,
    )


def go_on(database: Engine, key: ApiKey, reason: str) -> Entry:
    """Let nights release again."""
    return resume(database, key.tenant, actor=f"console:{key.name}", reason=reason)
