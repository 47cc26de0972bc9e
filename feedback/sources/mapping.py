"""One mapping from the rows of whatever source to events, by declared columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, cast

from pydantic import Field, field_validator

from feedback.events import Feedback, Interaction, event_time, event_time_of, pseudonym
from feedback.formats import FORMATS, format_of, rows_of
from feedback.store.user_salt import SALT
from infra.artifact import key_of
from infra.settings import Config, secret


class Columns(Config):
    """Which column holds what; what is not named is not in the file."""

    messages: str | None = None
    """Prompt as a list of chat messages (JSON text in CSV)."""
    prompt: str | None = None
    """Prompt as text, where there are no messages."""
    prompt_input: str | None = None
    """Further input that belongs under the prompt, as in Alpaca's files."""
    system: str | None = None
    """System message."""
    answer: str | None = None
    """The answer that was given."""
    interaction_id: str | None = None
    """Id of the interaction; default: hash of prompt and answer."""
    event_id: str | None = None
    """Id of the row's feedback; default: hash of the row."""
    user: str | None = None
    """End user."""
    session: str | None = None
    """Conversation."""
    actor: str | None = None
    """Who gave the feedback; default: the user, else the source."""
    version: str | None = None
    """Model version that answered."""
    task: str | None = None
    """Task."""
    created_at: str | None = None
    """Time: ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size: a
    number below 1e11 is seconds, below 1e14 milliseconds, below 1e17 microseconds. Default: the file's own time."""
    thumb: str | None = None
    """true/false, 1/0, up/down, good/bad."""
    rating: str | None = None
    """Score."""
    edit: str | None = None
    """Corrected answer."""
    chosen: str | None = None
    """Better answer."""
    rejected: str | None = None
    """Worse answer."""
    reference: str | None = None
    """Ground truth."""
    grader: str | None = None
    """Grader for the reference."""
    document: str | None = None
    """Text on its own."""
    comment: str | None = None
    """Free words."""
    finish_reason: str | None = None
    """Why generation ended, in OpenAI's words: an answer cut off by the limit of tokens (length) teaches no end."""
    tools: str | None = None
    """Definitions of tools that the prompt offered (kept with the sampling settings)."""


class RowOptions(Config):
    """How rows become events."""

    mapping: Columns | None = None
    """Column mapping; None where rows are recognised by their form."""
    dialect: str = "auto"
    """Form of rows without a mapping: auto, ratchet (events as Ratchet writes them), or one of the dialects."""
    tenant: str = "default"
    """Tenant of mapped rows, and of rows that cannot be read."""
    trusted: bool = False
    """Whether the people behind mapped rows are trusted."""
    rating_scale: float = Field(default=5, gt=1)
    """Best possible rating."""
    hashed_users: bool = False
    """Whether users and actors are pseudonyms already; else they are hashed with RATCHET_USER_SALT."""

    @field_validator("dialect")
    @classmethod
    def _known(cls, dialect: str) -> str:
        if dialect not in ("auto", "ratchet", *FORMATS):
            raise ValueError(f"unknown dialect {dialect!r}; expected auto, ratchet or one of {', '.join(FORMATS)}")
        return dialect


_TRUE = {"true", "1", "1.0", "up", "good", "yes", "+1", "like", "thumbs_up", "positive"}
_FALSE = {"false", "0", "0.0", "-1", "-1.0", "down", "bad", "no", "dislike", "thumbs_down", "negative"}


Made = tuple[list[Interaction], list[Feedback]]


def events_of(row: Mapping[str, Any], options: RowOptions, *, source: str, at: datetime) -> Made:
    """The events of one row; `at` is the time of rows that have none.

    Raises:
        ValueError, TypeError, KeyError: the row cannot be read (pydantic's ValidationError is a ValueError).
        UserError: users must be hashed and RATCHET_USER_SALT is not set.
    """
    if options.mapping is not None:
        return _mapped(row, options.mapping, options, source, at)
    if options.dialect == "ratchet" or (options.dialect == "auto" and row.keys() <= {"interaction", "feedback"}):
        return _own(row, options, source)
    dialect = format_of(row) if options.dialect == "auto" else options.dialect
    interactions: list[Interaction] = []
    feedback: list[Feedback] = []
    for cells in rows_of(dialect, row, scale=options.rating_scale):
        made, said = _mapped(cells, EVERY_COLUMN, options, source, at)
        interactions += [i for i in made if all(i != other for other in interactions)]
        feedback += said
    return interactions, feedback


def _own(row: Mapping[str, Any], options: RowOptions, source: str) -> Made:
    """A row that holds our own events. Whose data it is and whether it is trusted is not for a file to say."""
    unknown = row.keys() - {"interaction", "feedback"}
    if unknown or not row:
        raise ValueError(
            f"expected `interaction` and/or `feedback`, got {', '.join(sorted(map(str, unknown))) or 'nothing'}"
        )
    interactions = [Interaction.model_validate(row["interaction"], extra="forbid")] if "interaction" in row else []
    feedback = [Feedback.model_validate(row["feedback"], extra="forbid")] if "feedback" in row else []
    for made in [*(i.tenant for i in interactions), *(f.tenant for f in feedback)]:
        if made != options.tenant:
            raise ValueError(f"the row is of tenant {made!r}, expected the source's, {options.tenant!r}")
    for event in feedback:
        if event.trusted and not options.trusted:
            raise ValueError("the row calls itself trusted; only the source's option `trusted` (--trusted) may say so")
        if event.actor == source:
            raise ValueError(f"the row calls a person {source!r}, as rows of this source that name nobody are called")
    return interactions, [event.model_copy(update={"source": source}) for event in feedback]


def _mapped(row: Mapping[str, Any], mapping: Columns, options: RowOptions, source: str, default_at: datetime) -> Made:
    def cell(name: str) -> Any:
        column = getattr(mapping, name)
        if column is None:
            return None
        if column not in row:
            if mapping is EVERY_COLUMN:
                return None
            raise KeyError(f"no column {column!r} (for {name}); the row has {', '.join(map(str, row))[:200]}")
        value = row[column]
        empty = value is None or (isinstance(value, float) and math.isnan(value)) or value == ""
        return None if empty else value

    def text(name: str) -> str | None:
        value = cell(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, dict | list | bytes):
            raise TypeError(
                f"column {getattr(mapping, name)!r} (for {name}) should be text, got {type(value).__name__}"
            )
        return str(value)

    def person(name: str) -> str | None:
        value = text(name)
        return value if value is None or options.hashed_users else pseudonym(value, secret(SALT))

    at = _time(cell("created_at"), default_at)
    answer = text("answer") or ""
    messages = _messages(cell("messages"), text("prompt"), text("prompt_input"), text("system"))
    values = _values(cell, text, options)
    key = key_of({"row": {str(k): str(v) for k, v in row.items()}})[:24]
    interactions, about = [], None
    if messages:
        # Rows without an answer of the model's (demonstrations, pairs) are each about something of their own: several
        # right answers to one prompt are several lessons, and none takes another's place.
        about = text("interaction_id") or "f-" + key_of([messages, answer or {"row": key}])[:24]
        fields = {
            "interaction_id": about,
            "tenant": options.tenant,
            "user": person("user"),
            "session": text("session"),
            "version": text("version") or "import",
            "messages": messages,
            "answer": answer,
            "created_at": at,
            "task": text("task"),
            "finish_reason": text("finish_reason"),
            "sampling": {} if cell("tools") is None else {"tools": _parsed(cell("tools"))},
        }
        interactions.append(Interaction.model_validate(fields, extra="forbid"))
    elif mapping.interaction_id is not None:
        about = text("interaction_id")
    event = text("event_id") or f"f-{key}"
    somebody = person("actor") or person("user")
    if somebody == source:
        raise ValueError(f"the row calls a person {source!r}, as rows of this source that name nobody are called")
    actor = somebody or source
    made = [
        Feedback.model_validate(
            {
                "event_id": event if len(values) == 1 else f"{event}/{value['kind']}",
                "tenant": options.tenant,
                "interaction_id": None if value["kind"] == "document" else about,
                "actor": actor,
                "trusted": options.trusted,
                "kind": value["kind"],
                "value": value,
                "comment": text("comment"),
                "created_at": at,
                "source": source,
            },
            extra="forbid",
        )
        for value in values
    ]
    if not interactions and not made:
        raise ValueError("the row has neither a prompt nor any feedback in its mapped columns")
    return interactions, made


def _values(cell: Callable[[str], Any], text: Callable[[str], str | None], options: RowOptions) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = []
    if (thumb := cell("thumb")) is not None:
        said = str(thumb).strip().casefold()
        if said not in _TRUE | _FALSE:
            raise ValueError(f"thumb is {thumb!r}; expected true/false, 1/0, up/down or good/bad")
        values.append({"kind": "thumb", "up": said in _TRUE})
    if (rating := cell("rating")) is not None:
        values.append({"kind": "rating", "score": float(rating), "scale": options.rating_scale})
    values += [{"kind": kind, "text": body} for kind in ("edit", "document") if (body := text(kind)) is not None]
    chosen, rejected = text("chosen"), text("rejected")
    if chosen is not None and rejected is not None:
        values.append({"kind": "preference", "chosen": chosen, "rejected": rejected})
    elif (chosen is None) != (rejected is None):
        raise ValueError("a preference needs both chosen and rejected; one of them is empty")
    if (reference := text("reference")) is not None:
        values.append({"kind": "reference", "text": reference, "grader": text("grader")})
    return values


def _messages(given: Any, prompt: str | None, more: str | None, system: str | None) -> list[dict[str, Any]]:
    if given is not None:
        found = _parsed(given)
        if not isinstance(found, list):
            raise TypeError(f"messages should be a list, got {type(found).__name__}")
        # Parquet gives every message every field: what is null was not there.
        messages = [{k: v for k, v in dict(m).items() if v is not None} for m in found]
    elif prompt is not None:
        messages = [{"role": "user", "content": f"{prompt}\n\n{more}" if more else prompt}]
    else:
        return []
    return [{"role": "system", "content": system}, *messages] if system else messages


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


EVERY_COLUMN = Columns(**{name: name for name in Columns.model_fields})
"""The mapping of what a dialect says: each cell under its own name, or left out."""


_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6))
"""(numbers below this, how many of the unit are a second): each unit begins where the one before has passed 5000 AD."""


def _time(value: Any, default: datetime) -> datetime:
    if value is None:
        return default
    if isinstance(value, datetime):
        return event_time(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        number = float(value)
    except ValueError:
        return event_time(datetime.fromisoformat(cast("str", value)))
    return event_time_of(number / next((unit for most, unit in _UNITS if abs(number) < most), 1e9))
