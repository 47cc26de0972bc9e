"""What is live and how its watch stands, as facts. No Prefect here: `ratchet status` reads it too."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.database.open import open_database
from infra.settings import Places


def standing_facts(places: Places, tenant: str) -> dict[str, Any]:
    """What is live, since when and why; the open watch and what was last judged of it."""
    from deploy.controller.canary_watch import last_assessment
    from deploy.ledger.ledger import current, history

    engine = open_database(places)
    standing = current(engine, tenant)
    lines = history(engine, tenant)
    why = next((line for line in reversed(lines) if line.seq == standing.champion_seq), None)
    judged = last_assessment(engine, tenant)
    return {
        "champion": standing.champion,
        "since": standing.since.isoformat() if standing.since else None,
        "why": why.reason if why else "nothing was ever released; the first night makes the base model the champion",
        "by": why.actor if why else None,
        "previous": standing.previous,
        "canary": standing.canary,
        "canary_share": standing.canary_share,
        "holdback": standing.holdback,
        "barred": dict(standing.barred),
        "paused": standing.paused_at(now()),
        "watch": judged[0].model_dump(mode="json") if judged and standing.watch else None,
        "last_line": lines[-1].model_dump(mode="json") if lines else None,
    }


def controller_silent(places: Places, *, seconds: float) -> Alert | None:
    """An alert when no controller said that it lives within ``seconds``; one per hour of silence."""
    from deploy.controller.run import last_beats

    beats = last_beats(open_database(places))
    if any(at > now() - timedelta(seconds=seconds) for at, _ in beats.values()):
        return None
    last = max((at for at, _ in beats.values()), default=None)
    said = f"last heard of at {last:%Y-%m-%d %H:%M:%S} UTC" if last else "never heard of"
    return Alert(
        kind="controller_silent",
        severity="critical",
        title="nobody watches the canaries",
        text=f"The controller is silent ({said}). Canaries get no traffic until it is back.",
        next_step="`ratchet status`, then `ratchet up`",
        dedupe_key=f"controller_silent/{now():%Y%m%d%H}",
    )
