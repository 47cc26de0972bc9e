"""Build training-ready examples from feedback.

| said | made |
|---|---|
| edit | completion (the edit), preference (edit over the original) |
| thumb up, or a rating at or above `good_rating` | completion (the answer), rated good |
| thumb down, or a rating at or below `bad_rating` | rated bad only: a rejected answer is no lesson in what to say |
| preference | preference |
| reference | completion (the reference, unless it is a schema or a pattern), problem (prompt, reference, grader) |
| document | document |

A completion is taken from the reference, else the edit, else the approved answer: never two for one prompt. What
happens when people differ is in feedback/ingest/conflicts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from feedback.events import (
    EXPLORING,
    Edit,
    Feedback,
    Interaction,
    Preference,
    Rating,
    Reference,
    Thumb,
    is_answer,
    message_json,
    subject_of,
)
from feedback.examples import ANSWERS, Example, Shape, ShapeRules, same_text
from feedback.ingest.conflicts import Decision, Outcome, decide
from infra.artifact import key_of

ACCEPTED = Outcome("accepted", "accepted")


@dataclass
class Built:
    """What one subject makes: its examples, and the outcome of each of its events by event id."""

    examples: list[Example] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def build(interaction: Interaction | None, events: Sequence[Feedback], rules: ShapeRules) -> Built:
    """Build examples from all feedback on one interaction, or from one document (`interaction` None).

    `events` come in the order they were stored; each event gets exactly one outcome.
    """
    if interaction is None:
        return Built([_document(event) for event in events], {event.event_id: ACCEPTED for event in events})
    decision = decide(interaction, events, rules)
    builder = _Builder(interaction, rules)
    builder.build(decision)
    outcomes = {event.event_id: decision.outcomes.get(event.event_id, ACCEPTED) for event in events}
    return Built(builder.examples, outcomes)


def group_of(interaction: Interaction, rules: ShapeRules) -> str:
    """Return the split group of everything that comes from this interaction."""
    candidates = {"user": interaction.user, "session": interaction.session}
    order = {"user": ("user", "session"), "session": ("session", "user"), "interaction": ()}[rules.group_by]
    for kind in order:
        if candidates[kind]:
            return _group(interaction.tenant, kind, str(candidates[kind]))
    return _group(interaction.tenant, "interaction", interaction.interaction_id)


@lru_cache(maxsize=10_000)
def _group(tenant: str, kind: str, name: str) -> str:
    return key_of([tenant, kind, name])[:24]


class _Builder:
    """Build the examples of one interaction."""

    def __init__(self, interaction: Interaction, rules: ShapeRules) -> None:
        self.examples: list[Example] = []
        self._interaction, self._rules = interaction, rules
        self._group = group_of(interaction, rules)
        self._messages = [message_json(m) for m in interaction.messages]

    def build(self, decision: Decision) -> None:
        """Add every example that the decision gives."""
        answer, deciders, pair = self._interaction.answer, decision.deciders, decision.preferences
        answered = bool(decision.references) and self._add_reference(decision.references)
        edits = [
            w for w in decision.edits if isinstance(w.value, Edit) and same_text(w.value.text) != same_text(answer)
        ]
        if edits:
            better = edits[0].value
            assert isinstance(better, Edit)
            if not answered:
                self._add("completion", "edit", edits, completion=better.text)
            if answer:
                # Somebody may have preferred just what was edited: one pair, borne by all of them.
                same = [w for w in pair if w.value == Preference(chosen=better.text, rejected=answer)]
                self._add("preference", "edit", [*edits, *same], chosen=better.text, rejected=answer)
                pair = [w for w in pair if w not in same]
        if decision.good and deciders and not answered:
            self._add("completion", "approved", deciders, completion=answer)
        clicks = [w for w in deciders if isinstance(w.value, Thumb | Rating)]
        if decision.good is not None and clicks:
            reason, trusted = "approved" if decision.good else "rejected", any(w.trusted for w in deciders)
            self._add("rated", reason, clicks, trusted=trusted, completion=answer, good=decision.good)
        if pair:
            preferred = pair[0].value
            assert isinstance(preferred, Preference)
            self._add("preference", "preference", pair, chosen=preferred.chosen, rejected=preferred.rejected)

    def _add_reference(self, events: Sequence[Feedback]) -> bool:
        """Add what a reference gives. Returns whether it is a right answer: a schema or a pattern is nothing to say, so
        other feedback gives the completion."""
        truth = events[0].value
        assert isinstance(truth, Reference)
        grader = truth.grader or self._rules.grader
        answered = is_answer(grader)
        if answered:
            self._add("completion", "reference", events, completion=truth.text)
        self._add("problem", "reference", events, reference=truth.text, grader=grader)
        return answered

    def _add(
        self, shape: Shape, reason: str, events: Sequence[Feedback], *, trusted: bool | None = None, **content: Any
    ) -> None:
        """Add one example; `trusted`: whether trusted people's words decided it, by default whether one is among these.

        `content` is the fields that its shape has.
        """
        interaction = self._interaction
        identity = [interaction.tenant, interaction.interaction_id, shape, self._messages, content]
        # Which answers are the interaction's own, where that one was cut off; what people wrote is whole.
        mine = {same_text(interaction.answer)} if interaction.cut_off else set()
        cut = [name for name in ANSWERS if content.get(name) and same_text(content[name]) in mine]
        self.examples.append(
            Example(
                example_id="x-" + key_of(identity)[:24],
                tenant=interaction.tenant,
                subject=interaction.interaction_id,
                shape=shape,
                messages=interaction.messages,
                group=self._group,
                user=interaction.user,
                trusted=any(w.trusted for w in events) if trusted is None else trusted,
                task=interaction.task,
                reason=reason,
                explored=interaction.routing is not None and interaction.routing.arm in EXPLORING,
                version=interaction.version,
                source_events=tuple(sorted(w.event_id for w in events)),
                created_at=max(w.created_at for w in events),
                cut=tuple(cut),
                **content,
            )
        )


def _document(event: Feedback) -> Example:
    value = event.value
    assert value.kind == "document"
    identity = [event.tenant, event.event_id, "document", value.text]
    return Example(
        example_id="x-" + key_of(identity)[:24],
        tenant=event.tenant,
        subject=subject_of(event),
        shape="document",
        text=value.text,
        group=key_of([event.tenant, "document", event.event_id])[:24],
        user=event.actor,
        trusted=event.trusted,
        reason="document",
        source_events=(event.event_id,),
        created_at=event.created_at,
    )
