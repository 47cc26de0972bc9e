"""Map the rows of any source to events, by declared columns."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from typing import Any, cast

from pydantic import Field, field_validator

from feedback.events import Feedback, Interaction
from feedback.formats import FORMATS, Cells, Chat, Row, format_of
from feedback.formats.timestamps import event_time, event_time_of
from feedback.store.user_salt import SALT, pseudonym
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


def events_of(row: Row, options: RowOptions, *, source: str, at: datetime) -> Made:
    """Make the events of one row; `at` is the time of rows that have none.

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
    for cells in FORMATS[dialect].rows(row, scale=options.rating_scale):
        made, events = _mapped(cells, EVERY_COLUMN, options, source, at)
        interactions += [i for i in made if all(i != other for other in interactions)]
        feedback += events
    return interactions, feedback


def _own(row: Row, options: RowOptions, source: str) -> Made:
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


class _RowReader:
    """Read the cells of one row by their declared columns."""

    def __init__(self, row: Row, mapping: Columns, options: RowOptions) -> None:
        self._row, self._mapping, self._options = row, mapping, options

    def cell(self, name: str) -> Any:
        """Return a cell; None where it is empty, or not in the file."""
        column = getattr(self._mapping, name)
        if column is None:
            return None
        if column not in self._row:
            if self._mapping is EVERY_COLUMN:
                return None
            raise KeyError(f"no column {column!r} (for {name}); the row has {', '.join(map(str, self._row))[:200]}")
        value = self._row[column]
        empty = value is None or (isinstance(value, float) and math.isnan(value)) or value == ""
        return None if empty else value

    def text(self, name: str) -> str | None:
        """Return a cell that holds text."""
        value = self.cell(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, dict | list | bytes):
            raise TypeError(
                f"column {getattr(self._mapping, name)!r} (for {name}) should be text, got {type(value).__name__}"
            )
        return str(value)

    def person(self, name: str) -> str | None:
        """Return a cell that holds a person's id, as their pseudonym."""
        value = self.text(name)
        return value if value is None or self._options.hashed_users else pseudonym(value, secret(SALT))

    def messages(self) -> Chat:
        """Return the prompt; empty where the row has none."""
        given = self.cell("messages")
        prompt, more, system = self.text("prompt"), self.text("prompt_input"), self.text("system")
        if given is not None:
            listed = _parsed(given)
            if not isinstance(listed, list):
                raise TypeError(f"messages should be a list, got {type(listed).__name__}")
            # Parquet gives every message every field: what is null was not there.
            messages = [{k: v for k, v in dict(m).items() if v is not None} for m in listed]
        elif prompt is not None:
            messages = [{"role": "user", "content": f"{prompt}\n\n{more}" if more else prompt}]
        else:
            return []
        return [{"role": "system", "content": system}, *messages] if system else messages

    def values(self) -> list[Cells]:
        """Return the feedback, a payload for each kind that is mapped and not empty."""
        values: list[Cells] = []
        if (thumb := self.cell("thumb")) is not None:
            verdict = str(thumb).strip().casefold()
            if verdict not in _TRUE | _FALSE:
                raise ValueError(f"thumb is {thumb!r}; expected true/false, 1/0, up/down or good/bad")
            values.append({"kind": "thumb", "up": verdict in _TRUE})
        if (rating := self.cell("rating")) is not None:
            values.append({"kind": "rating", "score": float(rating), "scale": self._options.rating_scale})
        texts = ((kind, self.text(kind)) for kind in ("edit", "document"))
        values += [{"kind": kind, "text": body} for kind, body in texts if body is not None]
        chosen, rejected = self.text("chosen"), self.text("rejected")
        if chosen is not None and rejected is not None:
            values.append({"kind": "preference", "chosen": chosen, "rejected": rejected})
        elif (chosen is None) != (rejected is None):
            raise ValueError("a preference needs both chosen and rejected; one of them is empty")
        if (reference := self.text("reference")) is not None:
            values.append({"kind": "reference", "text": reference, "grader": self.text("grader")})
        return values


def _mapped(row: Row, mapping: Columns, options: RowOptions, source: str, default_at: datetime) -> Made:
    reader = _RowReader(row, mapping, options)
    at = _time(reader.cell("created_at"), default_at)
    answer = reader.text("answer") or ""
    messages, values = reader.messages(), reader.values()
    key = key_of({"row": {str(k): str(v) for k, v in row.items()}})[:24]
    interactions, about = [], None
    if messages:
        # Rows without an answer of the model's (demonstrations, pairs) are each about something of their own: several
        # right answers to one prompt are several lessons, and none takes another's place.
        about = reader.text("interaction_id") or "f-" + key_of([messages, answer or {"row": key}])[:24]
        tools = reader.cell("tools")
        fields = {
            "interaction_id": about,
            "tenant": options.tenant,
            "user": reader.person("user"),
            "session": reader.text("session"),
            "version": reader.text("version") or "import",
            "messages": messages,
            "answer": answer,
            "created_at": at,
            "task": reader.text("task"),
            "finish_reason": reader.text("finish_reason"),
            "sampling": {} if tools is None else {"tools": _parsed(tools)},
        }
        interactions.append(Interaction.model_validate(fields, extra="forbid"))
    elif mapping.interaction_id is not None:
        about = reader.text("interaction_id")
    event = reader.text("event_id") or f"f-{key}"
    somebody = reader.person("actor") or reader.person("user")
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
                "comment": reader.text("comment"),
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
