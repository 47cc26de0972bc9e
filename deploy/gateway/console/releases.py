"""Show releases on the console (what is live, the ledger), and roll back or resume from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from deploy.canary.assess import Assessment
from deploy.controller.canary_watch import last_assessment
from deploy.controller.run import last_beats
from deploy.ledger.ledger import Entry, current, history
from deploy.release.lifecycle import resume, roll_back
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


def live(engine: Engine, tenant: str) -> Live:
    """Summarise a tenant's release, the last judgement of its watch, alerts, and the controller's sign of life."""
    standing, entries = current(engine, tenant), history(engine, tenant)
    why = next((entry for entry in reversed(entries) if entry.seq == standing.champion_seq), None)
    judged = last_assessment(engine, tenant) if standing.watch else None
    beats = [at for at, _ in last_beats(engine).values()]
    return Live(
        now=now().isoformat(),
        seq=standing.seq,
        champion=standing.champion,
        since=standing.since.isoformat() if standing.since else None,
        by=why.actor if why else None,
        why=why.reason if why else "nothing was ever released: the first night makes the base model the champion",
        previous=standing.previous,
        base=standing.base,
        canary=standing.canary,
        canary_share=standing.canary_share,
        holdback=standing.holdback,
        barred=standing.barred,
        paused=standing.paused_at(now()),
        judged=judged[0] if judged else None,
        controller_seen=max(beats).isoformat() if beats else None,
        alerts=tuple(_sent(alert) for alert in list_alerts(engine, tenant=tenant, limit=20)),
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


def ledger(engine: Engine, tenant: str) -> Ledger:
    """Read the ledger, newest entry first, and say whether a rollback leads anywhere."""
    standing = current(engine, tenant)
    return Ledger(
        seq=standing.seq,
        champion=standing.champion,
        canary=standing.canary,
        previous=standing.previous,
        base=standing.base,
        paused=standing.paused_at(now()),
        can_roll_back=standing.champion is not None and bool(standing.canary or standing.champion != standing.base),
        lines=tuple(reversed(history(engine, tenant))),
    )


def take_back(
    engine: Engine,
    key: ApiKey,
    request: TakeBack,
    pause_seconds: float | None,
    prove: Callable[[str], Mapping[str, Any]],
) -> Entry:
    """Roll back what stood when the person decided.

    Raises:
        Conflict: the ledger moved since the person looked.
        RefusedTransition: there is nothing to take back, or the target is refused.
    """
    standing = current(engine, key.tenant)
    if standing.seq != request.expected_seq:
        raise Conflict(
            f"the ledger moved on to line {standing.seq} while you looked at line {request.expected_seq}; "
            "look again and decide anew"
        )
    return roll_back(
        engine,
        key.tenant,
        to=request.to,
        actor=f"console:{key.name}",
        reason=request.reason,
        pause_seconds=pause_seconds,
        prove=prove,
        decided_on=standing,
    )


def go_on(engine: Engine, key: ApiKey, reason: str) -> Entry:
    """Let nights release again."""
    return resume(engine, key.tenant, actor=f"console:{key.name}", reason=reason)
