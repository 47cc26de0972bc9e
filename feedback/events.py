"""Define events: an interaction (a request and its answer), and feedback (what somebody said of it).

They are values: frozen, strict, and equal after a round trip through JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, JsonValue, model_validator
from pydantic.config import ExtraValues

from feedback.field_types import JsonObject, Moment, Name, Text
from infra.stored_model import Stored

FeedbackKind = Literal["thumb", "rating", "edit", "preference", "reference", "document"]
Arm = Literal["champion", "canary", "holdback", "pinned", "arena"]
CUT_OFF: frozenset[str] = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_completion_tokens",
        "model_length",
        "content_filter",
        "cancelled",
    }
)
"""Reasons for which generation ended before the answer did, in the words of the usual servers and of the gateway."""
EXPLORING: frozenset[str] = frozenset({"canary", "arena"})
"""Arms whose answers were shown to learn something, not because the champion would have said them."""


class Event(Stored):
    """Base of events. JSON is what was stored and keeps what is unknown in it; a mapping comes from outside and may not
    hold anything unknown, unless `extra` says otherwise."""

    @classmethod
    def model_validate(cls, obj: Any, *, extra: ExtraValues | None = None, **rest: Any) -> Self:
        return super().model_validate(obj, extra=extra or "forbid", **rest)


class Message(Event):
    """One turn of a conversation, as chat templates take it."""

    role: Literal["system", "user", "assistant", "tool"]
    """Who speaks."""
    content: Text
    """What is said; empty where an assistant only calls tools."""
    name: Text | None = None
    """Name of the tool or participant."""
    tool_calls: tuple[JsonObject, ...] | None = None
    """Calls the assistant makes, in OpenAI's form."""
    tool_call_id: Text | None = None
    """The call that a tool message answers."""


def message_json(message: Message) -> dict[str, JsonValue]:
    """Write a message as chat templates take it: what is not set is left out.

    Most messages hold words only; putting those together by hand is many times as fast as a dump.
    """
    if message.name is None and message.tool_calls is None and message.tool_call_id is None:
        return {"role": message.role, "content": message.content}
    return message.model_dump(mode="json", exclude_none=True)


class Routing(Stored):
    """How it was decided which version answers; the canary's test needs all of it."""

    release_seq: int
    """Ledger sequence of the release under which the answer was given."""
    arm: Arm
    """The side of the comparison."""
    unit: Name
    """The randomised unit: user, else session, else request."""
    probability: float = Field(gt=0, le=1)
    """The chance that this unit got this arm."""


class Interaction(Event):
    """One request and its answer."""

    interaction_id: Name
    """Unique within the tenant."""
    tenant: Name
    """Whose traffic it is."""
    user: Name | None = None
    """End user, already a pseudonym (see `pseudonym`)."""
    session: Name | None = None
    """Conversation that the request belongs to."""
    version: Name
    """Model version that answered; `import` for answers of unknown origin."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """The prompt."""
    answer: Text = ""
    """What was answered; empty where no answer was shown (imported problems)."""
    created_at: Moment
    """When (UTC)."""
    latency_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Milliseconds from request to last token."""
    sampling: JsonObject = {}
    """Sampling settings used."""
    prompt_tokens: int = Field(default=0, ge=0)
    """Tokens of the prompt."""
    completion_tokens: int = Field(default=0, ge=0)
    """Tokens of the answer."""
    task: Name | None = None
    """Task the application declared."""
    routing: Routing | None = None
    """How the version was chosen; None outside the gateway's routing."""
    finish_reason: Text | None = None
    """Why generation ended."""

    @property
    def cut_off(self) -> bool:
        """Whether the answer was cut off: by a limit of tokens, a filter, or a client that left."""
        return (self.finish_reason or "").casefold() in CUT_OFF


class Thumb(Stored):
    """Up or down."""

    kind: Literal["thumb"] = "thumb"
    """The kind, in the payload so that it explains itself."""
    up: bool
    """True for up."""


class Rating(Stored):
    """A score on a scale that starts at 1, as stars do (0 is also allowed)."""

    kind: Literal["rating"] = "rating"
    """The kind, in the payload so that it explains itself."""
    score: float = Field(ge=0, allow_inf_nan=False)
    """The score given."""
    scale: float = Field(default=5, gt=1, allow_inf_nan=False)
    """The best possible score."""

    @model_validator(mode="after")
    def _within(self) -> Rating:
        if self.score > self.scale:
            raise ValueError(f"score {self.score} is above its scale {self.scale}")
        return self

    @property
    def fraction(self) -> float:
        """The score on 0..1, one star being 0."""
        return max(0.0, (self.score - 1) / (self.scale - 1))


class Edit(Stored):
    """The answer as it should have been."""

    kind: Literal["edit"] = "edit"
    """The kind, in the payload so that it explains itself."""
    text: Text
    """The corrected answer."""


class Preference(Stored):
    """This over that."""

    kind: Literal["preference"] = "preference"
    """The kind, in the payload so that it explains itself."""
    chosen: Text
    """The better answer."""
    rejected: Text
    """The worse answer."""


class Reference(Stored):
    """Ground truth for the prompt."""

    kind: Literal["reference"] = "reference"
    """The kind, in the payload so that it explains itself."""
    text: Text
    """A right answer; a JSON Schema or a pattern where the grader is json_schema or regex."""
    grader: Name | None = None
    """Name of the grader that compares answers with it."""


NOT_ANSWERS = frozenset({"json_schema", "regex"})
"""Graders whose reference says what a right answer is like, and is none itself."""


def is_answer(grader: str | None) -> bool:
    """Tell whether a reference with this grader is a right answer: to be learnt from, and to be compared with."""
    return grader not in NOT_ANSWERS


class Document(Stored):
    """Text on its own, for continued pretraining."""

    kind: Literal["document"] = "document"
    """The kind, in the payload so that it explains itself."""
    text: Text
    """The text."""


Value = Thumb | Rating | Edit | Preference | Reference | Document


class Feedback(Event):
    """What somebody said of an interaction, or a document on its own."""

    event_id: Name
    """Unique within the tenant: the same event sent twice counts once."""
    tenant: Name
    """Whose traffic it is."""
    interaction_id: Name | None = None
    """What it is about; None for documents only."""
    actor: Name
    """Who says it, already a pseudonym."""
    trusted: bool = False
    """Whether the actor is one whose labels may stand in the gate set."""
    kind: FeedbackKind
    """What is said; follows from `value` where it is left out."""
    value: Annotated[Value, Field(discriminator="kind")]
    """The payload of that kind."""
    comment: Text | None = None
    """Free words beside it; kept, never trained on."""
    created_at: Moment
    """When it was said (UTC)."""
    source: Name = "gateway"
    """Where it came from."""

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, data: Any) -> Any:
        """`kind` and the payload's own kind are one thing: either may be left out."""
        if not isinstance(data, Mapping) or "value" not in data:
            return data
        value = data["value"]
        if isinstance(value, Mapping):
            if "kind" not in value and "kind" in data:
                return {**data, "value": {**value, "kind": data["kind"]}}
            if "kind" in value and "kind" not in data:
                return {**data, "kind": value["kind"]}
        elif "kind" not in data and isinstance(value, get_args(Value)):
            return {**data, "kind": value.kind}
        return data

    @model_validator(mode="after")
    def _agrees(self) -> Feedback:
        if self.kind != self.value.kind:
            raise ValueError(f"kind is {self.kind!r} but value is a {self.value.kind}; make them the same")
        if (self.interaction_id is None) != (self.kind == "document"):
            raise ValueError(
                f"a {self.kind} with interaction_id {self.interaction_id!r}: documents stand alone, all else needs one"
            )
        return self


def texts_of(value: Value) -> tuple[str, ...]:
    """Return the texts that a payload holds, none for a thumb or a rating."""
    if isinstance(value, Preference):
        return value.chosen, value.rejected
    return (value.text,) if isinstance(value, Edit | Reference | Document) else ()


def subject_of(event: Feedback) -> str:
    """Return what an event's rows are filed under: its interaction, or itself where it is a document.

    Documents are marked, for their id may be that of an interaction too.
    """
    return event.interaction_id if event.interaction_id is not None else f"document/{event.event_id}"


def score_of(value: Value) -> float | None:
    """Return what a rating says on 0..1 (a thumb is 0 or 1); None for kinds that do not score."""
    if isinstance(value, Thumb):
        return 1.0 if value.up else 0.0
    return value.fraction if isinstance(value, Rating) else None


def has_named_actor(event: Feedback) -> bool:
    """Tell whether the actor is an account, not just the source of rows that do not say whose they are.

    Nobody can take the name of a source from outside: the gateway gives the names itself, and a row that is mapped
    from a file is refused if it tries.
    """
    return event.source == "gateway" or event.actor != event.source


def speaker_of(event: Feedback) -> str:
    """Return whose word it is, as far as that can be told: the account's, or that of the one row that names nobody.

    What one row of a file says in several columns has one id with the kind behind it, and is one person's.
    """
    return event.actor if has_named_actor(event) else f"{event.source}/{event.event_id.removesuffix(f'/{event.kind}')}"
