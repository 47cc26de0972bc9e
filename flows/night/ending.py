"""End a night: early, in failure, or with a summary for whoever started it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from deploy.nights.record import NightState
from deploy.nights.steps import SNAPSHOT, VERDICT
from evaluation.gate.verdict import Decision
from flows.night.record import Night
from infra.alerts.outbox import Alert
from infra.errors import UserError
from infra.settings import Config
from tasks import notify
from tasks.reporting import prefect_artifacts

log = logging.getLogger(__name__)


class NightSummary(Config):
    """What a night came to."""

    night_id: str
    tenant: str
    state: NightState
    outcome: str
    """How it ended, in one sentence."""
    decision: Decision | None
    """Of the gate; None where nothing was judged."""
    winner: str | None
    """Version that the gate promoted."""
    snapshot: str | None
    """What it worked on; "" where there was no data yet, None where it ended before that."""
    challengers: Mapping[str, str]
    """Recipe to the version it made, or why it made none."""
    attempts: int
    """How many processes worked on it."""


class SkippedNight(Config):
    """A scheduled run that had nothing to do: a later night has covered it."""

    night_id: None = None
    state: NightState = "done"
    outcome: str
    """Why nothing was to be done."""
    decision: None = None
    winner: None = None
    snapshot: None = None


def end_early(night: Night, reason: str) -> None:
    """Close a night that has nothing to do."""
    log.info("the night ends here: %s", reason)
    night.close("done", reason)


def skip_night(reason: str) -> SkippedNight:
    """Sum up a run that came due while the machine was off, and that a later night has covered."""
    log.info("nothing to do: %s", reason)
    return SkippedNight(outcome=reason)


def alert_failure(night: Night, error: Exception) -> None:
    """Alert that a night failed, and close it where trying again could not help."""
    text = f"{type(error).__name__}: {error}"[:2000]
    last = night.record.attempts >= night.config.schedule.attempts
    if last or isinstance(error, UserError):
        night.close("failed", text)
        next_step = "mend what the text names, then `ratchet run nightly` begins a new night"
    else:
        next_step = "`ratchet run nightly` takes the night up where it stopped"
    alert = Alert(
        kind="run_failed",
        severity="critical",
        tenant=night.tenant,
        title=f"night {night.night_id} failed (try {night.record.attempts})",
        text=text,
        next_step=next_step,
        payload={"night_id": night.night_id, "attempt": night.record.attempts, "steps": list(night.record.steps)},
        dedupe_key=f"run_failed/{night.night_id}/{night.record.attempts}",
    )
    try:
        notify.alert(night.places, night.config.alerts, alert)
    except Exception:  # the failure itself must reach the caller, whatever the alert ran into
        log.exception("the alert about it could not be written")


def summary(night: Night) -> NightSummary:
    """Sum up a night; how long its steps took goes to the run's page."""
    record = night.record
    prefect_artifacts.show_durations(record.seconds)
    verdict = record.result(VERDICT)
    return NightSummary(
        night_id=record.night_id,
        tenant=record.tenant,
        state=record.state,
        outcome=record.outcome,
        decision=verdict.decision if verdict else None,
        winner=verdict.winner if verdict else None,
        snapshot=record.stored(SNAPSHOT),
        challengers={
            made.recipe: made.stages[-1].version if made.error is None else f"failed: {made.error}"
            for made in record.trained()
        },
        attempts=record.attempts,
    )
