"""Extract what an event claims of its prompt, and hold it with the context that abuse is detected in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from feedback.abuse.agreement import Claim
from feedback.events import Edit, Feedback, Interaction, Preference, Rating, Reference, Thumb
from feedback.examples import user_text


class EventInContext(NamedTuple):
    """One event with what it is about; `fresh` events are judged, others are context."""

    interaction: Interaction | None
    event: Feedback
    claim: Claim | None
    """See `claim_of`."""
    fresh: bool
    language_mismatch: bool
    """Whether the claim's label is in another language than its prompt."""


class Hold(NamedTuple):
    """Events to hold, and why."""

    events: Sequence[Feedback]
    code: str
    """Reason in a word."""
    detail: str
    """Reason in a sentence."""


def claim_of(interaction: Interaction | None, event: Feedback) -> Claim | None:
    """Return what an event claims of its prompt; None where it claims nothing that can be compared."""
    value = event.value
    if interaction is None:
        return None
    prompt = user_text(interaction.messages)
    positive = True
    if isinstance(value, Edit | Reference):
        answer = value.text
    elif isinstance(value, Preference):
        answer = value.chosen
    elif isinstance(value, Thumb):
        answer, positive = interaction.answer, value.up
    elif isinstance(value, Rating) and not 0.25 < value.fraction < 0.75:
        answer, positive = interaction.answer, value.fraction > 0.5
    else:
        return None
    return Claim(interaction.interaction_id, event.actor, prompt, answer, positive) if answer else None
