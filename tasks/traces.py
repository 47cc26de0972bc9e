"""New interactions and feedback on their way to MLflow's trace page: sampled, later, and never the only copy.

Where it stopped is kept in a file, written after MLflow took a lot: a crash in between sends it again. While MLflow is
away nothing is sent, and nothing is lost.
"""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path

from feedback.events import Edit, Feedback, Interaction, Preference, Rating, Reference, Thumb, message_json
from feedback.store import Store
from infra.artifact import atomic_write
from infra.errors import Unavailable
from infra.interaction_traces import Said, Shown, TraceSender, chosen
from infra.settings import Places
from infra.trace_settings import TracesConfig
from tasks.opened import database

log = logging.getLogger(__name__)


def send_traces(places: Places, pipeline: str, config: TracesConfig) -> dict[str, int]:
    """Send one lot of what is new; how many interactions and feedback went. Nothing when no share is asked for."""
    sent = {"interactions": 0, "feedback": 0}
    if config.share <= 0:
        return sent
    store, sender = Store(database(places)), TraceSender(places.mlflow, pipeline)
    file = places.home_dir / "traces.json"
    cursor = _cursor(file)
    try:
        new = store.interactions_after(cursor["interactions"], config.lot)
        picked = [shown_of(one) for _, one in new if chosen(one.interaction_id, config.share)]
        sender.show(picked)
        if new:
            cursor["interactions"] = new[-1][0]
            atomic_write(file, json.dumps(cursor))
        sent["interactions"] = len(picked)
        if len(new) == config.lot:
            return sent  # feedback waits until the answers are there
        for ready in store.feedback_after(cursor["feedback"], config.lot):
            said = said_of(ready.feedback)
            if said is not None and not ready.orphan and chosen(said.interaction_id, config.share):
                sender.say(said)
                sent["feedback"] += 1
            cursor["feedback"] = ready.seq
            atomic_write(file, json.dumps(cursor))
    except Unavailable as error:
        log.warning("traces wait: %s", error)
    return sent


def shown_of(interaction: Interaction) -> Shown:
    """An interaction as MLflow shows it."""
    begun = interaction.created_at
    ended = begun + timedelta(milliseconds=interaction.latency_ms)
    facts = {"version": interaction.version, "tenant": interaction.tenant, "task": interaction.task or ""}
    if interaction.routing is not None:
        facts |= {"arm": interaction.routing.arm, "ledger_line": str(interaction.routing.release_seq)}
    return Shown(
        interaction_id=interaction.interaction_id,
        messages=[message_json(message) for message in interaction.messages],
        answer=interaction.answer,
        begun_ns=int(begun.timestamp() * 1e9),
        ended_ns=int(ended.timestamp() * 1e9),
        facts={name: value for name, value in facts.items() if value},
        user=interaction.user,
        session=interaction.session,
    )


def said_of(event: Feedback) -> Said | None:
    """A feedback as an assessment; None for what is about no interaction."""
    value = event.value
    if event.interaction_id is None:
        return None
    told: bool | float | str
    if isinstance(value, Thumb):
        told = value.up
    elif isinstance(value, Rating):
        told = float(value.score)
    elif isinstance(value, Edit | Reference):
        told = value.text
    elif isinstance(value, Preference):
        told = value.chosen
    else:
        return None
    return Said(event.interaction_id, event.kind, told, event.actor, event.comment)


def _cursor(file: Path) -> dict[str, int]:
    if not file.exists():
        return {"interactions": 0, "feedback": 0}
    found: dict[str, int] = json.loads(file.read_text())
    return found
