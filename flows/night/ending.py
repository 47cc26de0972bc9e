"""How nights end: early, in failure, or with a summary for whoever started them."""

from __future__ import annotations

import logging
from typing import Any

from flows.night.record import Night
from infra.alerts.outbox import Alert
from infra.errors import UserError
from tasks import notify, train
from tasks.reporting import prefect_artifacts

log = logging.getLogger(__name__)


def end_early(night: Night, reason: str) -> None:
    """Close a night that has nothing to do."""
    log.info("the night ends here: %s", reason)
    night.close("done", reason)


def end_unneeded(reason: str) -> dict[str, Any]:
    """A run that came due while the machine was off, and whose night was made up for."""
    log.info("nothing to do: %s", reason)
    return {"night_id": None, "state": "done", "outcome": reason, "decision": None, "winner": None, "snapshot": None}


def tell_failure(night: Night, error: Exception) -> None:
    """Alert that a night failed, and close it where trying again could not help."""
    said = f"{type(error).__name__}: {error}"[:2000]
    last = night.file.attempts >= night.config.schedule.attempts
    if last or isinstance(error, UserError):
        night.close("failed", said)
        next_step = "mend what the text names, then `ratchet run nightly` begins a new night"
    else:
        next_step = "`ratchet run nightly` takes the night up where it stopped"
    what = Alert(
        kind="run_failed",
        severity="critical",
        tenant=night.tenant,
        title=f"night {night.night_id} failed (try {night.file.attempts})",
        text=said,
        next_step=next_step,
        payload={"night_id": night.night_id, "attempt": night.file.attempts, "steps": list(night.file.steps)},
        dedupe_key=f"run_failed/{night.night_id}/{night.file.attempts}",
    )
    try:
        notify.alert(night.config.places, night.config.alerts, what)
    except Exception:  # the failure itself must reach the caller, whatever the alert ran into
        log.exception("the alert about it could not be written")


def summary(night: Night) -> dict[str, Any]:
    """What a night came to, as facts; how long its steps took goes to the run's page."""
    prefect_artifacts.show_durations(night.file.seconds)
    verdict = night.file.steps.get("verdict")
    return {
        "night_id": night.night_id,
        "tenant": night.tenant,
        "state": night.file.state,
        "outcome": night.file.outcome,
        "decision": verdict["decision"] if verdict else None,
        "winner": verdict["winner"] if verdict else None,
        "snapshot": night.file.steps.get("snapshot"),
        "challengers": _challengers(night),
        "attempts": night.file.attempts,
    }


def _challengers(night: Night) -> dict[str, str]:
    """Recipe -> the version it made, or why it made none."""
    steps = {name: value for name, value in night.file.steps.items() if name.startswith("train ")}
    made = [train.Challenger.model_validate(value) for value in steps.values()]
    return {one.recipe: one.stages[-1].version if one.error is None else f"failed: {one.error}" for one in made}
