"""Define training-ready rows: an example of a shape (completion, preference, rated, problem, document)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from feedback.events import Message
from feedback.field_types import Moment
from infra.settings import Config
from infra.stored_model import Stored

Shape = Literal["completion", "preference", "rated", "problem", "document"]
Answer = Literal["completion", "chosen", "rejected"]
ANSWERS: tuple[Answer, ...] = ("completion", "chosen", "rejected")
"""Fields of an example that hold an answer as it was given."""
SHAPES: tuple[Shape, ...] = ("completion", "preference", "rated", "problem", "document")


class Example(Stored):
    """One training-ready row. Which of the answer fields are set follows from `shape`."""

    example_id: str
    """Hash of tenant, subject, shape and content: the same event always makes the same row."""
    tenant: str
    """Whose data it is."""
    subject: str
    """Interaction (or document event) it was made from; newer rows of a subject replace its older ones."""
    shape: Shape
    """completion, preference, rated, problem or document."""
    messages: tuple[Message, ...] = ()
    """The prompt as chat messages; empty for documents."""
    completion: str | None = None
    """The answer to learn (completion) or that was rated (rated)."""
    chosen: str | None = None
    """The better answer of a preference."""
    rejected: str | None = None
    """The worse answer of a preference."""
    good: bool | None = None
    """Whether a rated answer was good."""
    reference: str | None = None
    """Right answer of a problem."""
    grader: str | None = None
    """Grader that compares an answer with the reference."""
    text: str | None = None
    """A document's text."""
    group: str
    """Split group: rows of one group are never on two sides of a split."""
    user: str | None = None
    """End user (pseudonym) whose conversation it was."""
    trusted: bool = False
    """Whether trusted people's words decided it; only such rows may enter the gate."""
    task: str | None = None
    """Task the application declared."""
    cut: tuple[Answer, ...] = ()
    """Which of its answers were cut off, by a limit of tokens or by a client that left. What they say is learned, that
    they end there is not."""
    weight: float = 1.0
    """Weight in the loss."""
    reason: str
    """Why this row exists, in a word or two."""
    explored: bool = False
    """Whether the answer was shown by exploration (canary, arena), not by the champion's own taste."""
    version: str | None = None
    """Model version whose answer it was made from."""
    source_events: tuple[str, ...] = ()
    """Feedback events it was made from."""
    created_at: Moment
    """Time of the latest of these events (UTC)."""

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Rows whose answers are whole are written as before there was `cut`, so snapshots keep their ids."""
        row: dict[str, Any] = write(self)
        if not self.cut:
            row.pop("cut", None)
        return row


class ShapeRules(Config):
    """How feedback becomes examples."""

    good_rating: float = Field(default=0.75, ge=0, le=1)
    """Ratings at or above this fraction of their scale approve the answer (4 of 5 stars is 0.75)."""
    bad_rating: float = Field(default=0.25, ge=0, le=1)
    """Ratings at or below this fraction reject the answer (2 of 5 stars is 0.25); between them is neutral."""
    group_by: Literal["user", "session", "interaction"] = "user"
    """What stays together in a split. Where it is not known the next smaller thing is taken."""
    grader: str | None = None
    """Grader for references that name none."""


def user_text(messages: Sequence[Message]) -> str:
    """Return what prompts are compared by: all messages but those of the system, which are alike in all rows."""
    if len(messages) == 1:
        return messages[0].content if messages[0].role != "system" else ""
    return "\n".join([m.content for m in messages if m.role != "system"])


@lru_cache(maxsize=1_000)
def same_text(text: str) -> str:
    """Return what two texts are compared by: without differences of case and white space."""
    return " ".join(text.casefold().split())
