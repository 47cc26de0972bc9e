"""Convert what a batch puts into the lake to Polars tables, and rows of the lake back to examples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from feedback.events import Message, message_json
from feedback.examples import Example
from feedback.field_types import Moment
from infra.settings import Config
from infra.stored_model import Stored

if TYPE_CHECKING:
    import polars as pl
    from polars._typing import PolarsDataType

    Schema = Mapping[str, PolarsDataType]

Row = Mapping[str, Any]
"""A row of a table, by column."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGES = json.JSONEncoder(ensure_ascii=False)
_MICROSECOND = timedelta(microseconds=1)


class QuarantineRow(Stored):
    """Something that was kept out, and why, so that a person can read, correct and release it."""

    row_id: str
    """Hash of what is held and the code: the same thing held for the same reason is one row."""
    tenant: str
    """Whose data it is."""
    subject: str
    """Interaction, document event, or place in a file."""
    events: tuple[str, ...]
    """Feedback events that are held; empty for rows of files that could not be read."""
    actor: str | None = None
    """Who said it (pseudonym)."""
    step: str
    """Step that held it: source, normalise, redact, abuse, shape, expectations."""
    code: str
    """Reason in a word; counted by it."""
    detail: str
    """Reason in a sentence."""
    content: str
    """What is held (redacted), as JSON or raw text."""
    created_at: Moment
    """When the latest event was said, or the row was read (UTC)."""


class EventOutcome(Stored):
    """How one feedback event ended."""

    tenant: str
    """Whose data it is."""
    event_id: str
    """The event."""
    subject: str
    """Interaction it is about, or itself for a document."""
    status: str
    """accepted, merged or quarantined."""
    code: str
    """Reason in a word."""
    examples: tuple[str, ...] = ()
    """Examples that it made or that it was merged into."""


def example_of(row: Row) -> Example:
    """Make the example of a row of the accepted table."""
    # What was null was not said, or not asked yet: a lake keeps the columns of every release that wrote to it.
    fields = {name: value for name, value in row.items() if value is not None and name not in ("messages", "batch")}
    messages = tuple(Message.model_validate(m, extra="allow") for m in json.loads(row["messages"]))
    return Example.model_validate({**fields, "messages": messages})


def accepted_frame(examples: Sequence[Example], batch: int) -> pl.DataFrame:
    """Make the table of a batch's accepted examples."""
    texts: dict[tuple[str, str], str] = {}  # examples of one subject share their prompt

    def messages(example: Example) -> str:
        key = (example.tenant, example.subject)
        if key not in texts:
            texts[key] = _MESSAGES.encode([message_json(m) for m in example.messages])
        return texts[key]

    columns = _columns(examples, Example.model_fields)
    columns["batch"] = [batch] * len(examples)
    columns["messages"] = [messages(e) for e in examples]
    return _frame(columns, _accepted_schema())


def quarantine_frame(rows: Sequence[QuarantineRow], batch: int) -> pl.DataFrame:
    """Make the table of a batch's quarantined rows."""
    return _plain_frame(rows, batch, _quarantine_schema())


def outcome_frame(outcomes: Sequence[EventOutcome], batch: int) -> pl.DataFrame:
    """Make the table of how a batch's events ended."""
    return _plain_frame(outcomes, batch, _outcome_schema())


def no_examples() -> pl.DataFrame:
    """Make the table of accepted examples that holds none."""
    return _frame({}, _accepted_schema())


def _plain_frame(values: Sequence[Config], batch: int, schema: Schema) -> pl.DataFrame:
    columns = _columns(values, [name for name in schema if name != "batch"])
    return _frame({"batch": [batch] * len(values), **columns}, schema)


def _columns(values: Sequence[Config], names: Iterable[str]) -> dict[str, list[Any]]:
    fields = [vars(value) for value in values]
    return {name: [row[name] for row in fields] for name in names}


def _frame(columns: Mapping[str, list[Any]], schema: Schema) -> pl.DataFrame:
    """Make a table of the columns; lists and moments go a way that polars is fast on."""
    import polars as pl

    def made(name: str, kind: PolarsDataType) -> pl.Series:
        values = columns.get(name, [])
        if kind == pl.List(pl.String):
            return _lists(values).alias(name)
        if kind == pl.Datetime("us", "UTC"):
            return pl.Series(name, [(value - _EPOCH) // _MICROSECOND for value in values], dtype=pl.Int64).cast(kind)
        return pl.Series(name, values, dtype=kind)

    return pl.DataFrame([made(name, kind) for name, kind in schema.items()])


def _lists(values: Sequence[Sequence[str]]) -> pl.Series:
    """A column of lists of text."""
    import polars as pl

    rows = pl.DataFrame({"row": range(len(values))}, schema={"row": pl.Int64})
    flat = {
        "row": [row for row, value in enumerate(values) for _ in value],
        "text": [text for value in values for text in value],
    }
    grouped = pl.DataFrame(flat, schema={"row": pl.Int64, "text": pl.String}).group_by("row").agg("text")
    joined = rows.join(grouped, on="row", how="left", maintain_order="left")
    return joined["text"].fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _accepted_schema() -> Schema:
    import polars as pl

    flags = {"good", "trusted", "explored"}
    texts = {name: pl.Boolean if name in flags else pl.String for name in Example.model_fields}
    return {
        "batch": pl.Int64,
        **texts,
        "weight": pl.Float64,
        "source_events": pl.List(pl.String),
        "cut": pl.List(pl.String),
        "created_at": pl.Datetime("us", "UTC"),
    }


def _quarantine_schema() -> Schema:
    import polars as pl

    texts = dict.fromkeys(QuarantineRow.model_fields, pl.String)
    return {"batch": pl.Int64, **texts, "events": pl.List(pl.String), "created_at": pl.Datetime("us", "UTC")}


def _outcome_schema() -> Schema:
    import polars as pl

    return {"batch": pl.Int64, **dict.fromkeys(EventOutcome.model_fields, pl.String), "examples": pl.List(pl.String)}
