"""What the console shows and does of releases: the standing, the timeline, the ledger, the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from deploy.api_keys import ApiKey
from deploy.controller.heartbeat import last_beats
from deploy.controller.summary import summarise_release
from deploy.ledger.evidence import Prove
from deploy.ledger.ledger import current, history
from deploy.release.manual_controls import resume
from deploy.release.rollback import roll_back_from
from infra.alerts.outbox import list_alerts
from infra.database.connect import now
from infra.errors import Conflict

if TYPE_CHECKING:
    from deploy.gateway.console.mount import TakeBack


def live(database: Engine, tenant: str) -> dict[str, Any]:
    """The standing with its reason, the last judgement of the watch, alerts, and when the controller last spoke."""
    state, summary = current(database, tenant), summarise_release(database, tenant)
    beats = [beat.at for beat in last_beats(database).values()]
    never = "nothing was ever released: the first night makes the base model the champion"
    return {
        "now": now().isoformat(),
        "seq": state.seq,
        "base": state.base,
        **summary.model_dump(mode="json", exclude={"why", "watch", "last_line"}),
        "why": summary.why if summary.by is not None else never,
        "judged": summary.watch.model_dump(mode="json") if summary.watch else None,
        "controller_seen": max(beats).isoformat() if beats else None,
        "alerts": [
            alert.model_dump(mode="json", include={"alert_id", "kind", "severity", "title", "text", "next_step"})
            | {"at": alert.created_at.isoformat(), "delivered": list(alert.delivered), "failing": dict(alert.failing)}
            for alert in list_alerts(database, tenant=tenant, limit=20)
        ],
    }


def lines(database: Engine, tenant: str) -> dict[str, Any]:
    """The ledger, newest line first, and where a rollback would go."""
    standing = current(database, tenant)
    return {
        "seq": standing.seq,
        "champion": standing.champion,
        "canary": standing.canary,
        "previous": standing.previous,
        "base": standing.base,
        "paused": standing.paused_at(now()),
        "can_roll_back": standing.champion is not None and bool(standing.canary or standing.champion != standing.base),
        "lines": [line.model_dump(mode="json") for line in reversed(history(database, tenant))],
    }


def take_back(
    database: Engine,
    key: ApiKey,
    asked: TakeBack,
    pause_seconds: float | None,
    prove: Prove,
) -> dict[str, Any]:
    """Roll back what stood when the person decided.

    Raises:
        Conflict: the ledger moved since the person looked.
        RefusedTransition: there is nothing to take back, or the target is refused.
    """
    state = current(database, key.tenant)
    if state.seq != asked.expected_seq:
        raise Conflict(
            f"the ledger moved on to line {state.seq} while you looked at line {asked.expected_seq}; "
            "look again and decide anew"
        )
    entry = roll_back_from(
        database,
        state,
        to=asked.to,
        actor=f"console:{key.name}",
        reason=asked.reason,
        pause_seconds=pause_seconds,
        prove=prove,
    )
    return entry.model_dump(mode="json")


def go_on(database: Engine, key: ApiKey, reason: str) -> dict[str, Any]:
    """Let nights release again."""
    return resume(database, key.tenant, actor=f"console:{key.name}", reason=reason).model_dump(mode="json")
