"""Export new interactions and feedback to MLflow's trace page: sampled, later, and never the only copy.

Where it stopped is kept in a file, written after MLflow took a batch: a crash in between sends it again. While MLflow
is away nothing is sent, and nothing is lost. Where the store was restored from a backup, all of it is looked at again:
traces are known by their ids, and of feedback what was received up to the last that was sent is passed over.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from feedback.events import Edit, Feedback, Interaction, Preference, Rating, Reference, Thumb, message_json
from feedback.sources.watermark import fingerprint, watermark_mismatch
from feedback.store.store import Store, feedback_ready, interactions
from infra.artifact import atomic_write
from infra.database.open import open_database
from infra.errors import Unavailable
from infra.settings import Places
from infra.stored_model import Stored
from infra.telemetry.config import TracesConfig
from infra.telemetry.interaction_traces import Assessment, InteractionTrace, TraceSender, is_sampled

log = logging.getLogger(__name__)


class Cursor(Stored):
    """Where sending goes on, as `traces.json` keeps it."""

    interactions: int = 0
    """Number in the store up to which interactions were sent."""
    feedback: int = 0
    """The same of feedback."""
    interactions_mark: str | None = None
    """Fingerprint of the store's row at that number (feedback/sources/watermark.py)."""
    feedback_mark: str | None = None
    """The same of feedback."""
    received: datetime | None = None
    """When the latest feedback that was looked at had been received."""
    sent_before: datetime | None = None
    """While a restored store is looked at again: feedback received until then was sent before."""


def send_traces(places: Places, pipeline: str, config: TracesConfig) -> dict[str, int]:
    """Send one batch of what is new; how many interactions and feedback went. Nothing when no share is asked for."""
    sent = {"interactions": 0, "feedback": 0}
    if config.share <= 0:
        return sent
    store, sender = Store(open_database(places)), TraceSender(places.mlflow, pipeline)
    file = places.home_dir / "traces.json"
    cursor = _cursor(file, store)
    try:
        new = store.interactions_after(cursor.interactions, config.lot)
        picked = [trace_of(each) for _, each in new if is_sampled(each.interaction_id, config.share)]
        sender.send(picked)
        if new:
            mark = fingerprint(store.database, interactions, new[-1][0])
            cursor = _kept(file, cursor, interactions=new[-1][0], interactions_mark=mark)
        sent["interactions"] = len(picked)
        if len(new) == config.lot:
            return sent  # feedback waits until the answers are there
        for ready in store.feedback_after(cursor.feedback, config.lot):
            assessment = assessment_of(ready.feedback)
            known = cursor.sent_before is not None and ready.received_at <= cursor.sent_before
            sampled = assessment is not None and is_sampled(assessment.interaction_id, config.share)
            if assessment is not None and sampled and not ready.orphan and not known:
                sender.assess(assessment)
                sent["feedback"] += 1
            cursor = _kept(
                file,
                cursor,
                feedback=ready.seq,
                feedback_mark=fingerprint(store.database, feedback_ready, ready.seq),
                received=max(cursor.received or ready.received_at, ready.received_at),
                sent_before=cursor.sent_before if known else None,
            )
    except Unavailable as error:
        log.warning("traces wait: %s", error)
    return sent


def trace_of(interaction: Interaction) -> InteractionTrace:
    """Convert an interaction to a trace."""
    begun = interaction.created_at
    ended = begun + timedelta(milliseconds=interaction.latency_ms)
    tags = {"version": interaction.version, "tenant": interaction.tenant, "task": interaction.task or ""}
    if interaction.routing is not None:
        tags |= {"arm": interaction.routing.arm, "ledger_line": str(interaction.routing.release_seq)}
    return InteractionTrace(
        interaction_id=interaction.interaction_id,
        messages=[message_json(message) for message in interaction.messages],
        answer=interaction.answer,
        begun_ns=int(begun.timestamp() * 1e9),
        ended_ns=int(ended.timestamp() * 1e9),
        tags={name: value for name, value in tags.items() if value},
        user=interaction.user,
        session=interaction.session,
    )


def assessment_of(event: Feedback) -> Assessment | None:
    """Convert a feedback to an assessment; None for what is about no interaction."""
    value = event.value
    if event.interaction_id is None:
        return None
    shown: bool | float | str
    if isinstance(value, Thumb):
        shown = value.up
    elif isinstance(value, Rating):
        shown = float(value.score)
    elif isinstance(value, Edit | Reference):
        shown = value.text
    elif isinstance(value, Preference):
        shown = value.chosen
    else:
        return None
    return Assessment(event.interaction_id, event.kind, shown, event.actor, event.comment)


def _cursor(file: Path, store: Store) -> Cursor:
    """Where it stopped; the beginning where the store is no longer the one that was read."""
    if not file.exists():
        return Cursor()
    cursor = Cursor.model_validate_json(file.read_bytes())
    why = watermark_mismatch(
        store.database, interactions, cursor.interactions, cursor.interactions_mark
    ) or watermark_mismatch(store.database, feedback_ready, cursor.feedback, cursor.feedback_mark)
    if why is None:
        return cursor
    log.warning("the store was restored from a backup, or is another one: %s; traces are sent from its beginning", why)
    return _kept(file, Cursor(received=cursor.received, sent_before=cursor.received))


def _kept(file: Path, cursor: Cursor, **changes: Any) -> Cursor:
    cursor = cursor.model_copy(update=changes)
    atomic_write(file, cursor.model_dump_json())
    return cursor
