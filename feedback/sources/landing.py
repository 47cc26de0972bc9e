"""Land a source's events in the store: each lot with its watermark in one transaction, nothing lost or doubled.

Rows that could not be read are kept beside the events, and the next ingest puts them in quarantine with their reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from sqlalchemy import Column, Connection, Engine, Index, String, Table, Text, UniqueConstraint, insert, select

from feedback.events import Feedback, Interaction
from feedback.field_types import storable
from feedback.sources import SOURCES
from feedback.store.store import SEQUENCE, Landed, Store, land_feedback, land_interactions
from feedback.store.tombstones import erased_rejects
from feedback.store.user_salt import SALT, verify_salt
from infra.artifact import canonical_json, key_of
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.settings import Config, in_a_line

source_marks = Table(
    "source_marks",
    metadata,
    Column("source", String(200), primary_key=True),
    Column("mark", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

source_rejects = Table(
    "source_rejects",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    Column("source", String(200), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("place", String(600), nullable=False),
    Column("code", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("source", "place"),
    Index("source_rejects_source", "source"),
    sqlite_autoincrement=True,
)

RAW_CHARS = 4_000


@dataclass(frozen=True)
class RejectedRow:
    """A row of `source_rejects`."""

    seq: int
    source: str
    tenant: str
    place: str
    code: str
    detail: str
    raw: str
    at: datetime

    @property
    def row_id(self) -> str:
        """Id of the quarantine row that it becomes."""
        return key_of([self.tenant, self.source, self.place, self.code])


@dataclass(frozen=True)
class Reject:
    """A row that could not be made into events, and why. `place` is stable: the same row is one reject."""

    place: str
    code: str
    detail: str
    raw: str


@dataclass
class Lot:
    """What a source read, and the watermark from which it goes on."""

    watermark: JsonValue
    interactions: list[Interaction] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    tenant: str = "default"
    """Whose rejects these are."""


class SourceSpec(Config):
    """One source of feedback."""

    name: str = Field(min_length=1, max_length=200)
    """Its name, unique in the pipeline: its watermark is kept under it."""
    kind: str
    """One of the registered kinds, such as gateway or files."""
    options: Mapping[str, Any] = {}
    """Options of that kind; see the kind's module."""

    @field_validator("kind")
    @classmethod
    def _registered(cls, kind: str) -> str:
        if kind not in SOURCES:
            raise ValueError(f"unknown kind of source {kind!r}; expected one of {', '.join(sorted(SOURCES))}")
        return kind

    @model_validator(mode="after")
    def _options_fit(self) -> SourceSpec:
        self.parsed()
        return self

    def parsed(self) -> Config:
        """Return the options as the kind's own config.

        Raises:
            ValueError: they do not fit.
        """
        try:
            return SOURCES[self.kind].Options.model_validate(dict(self.options))
        except ValidationError as error:
            raise ValueError(f"options of source {self.name!r} ({self.kind}): {in_a_line(error)}") from error


def land(store: Store, spec: SourceSpec) -> dict[str, int]:
    """Bring everything new of a source into the store. Returns counts of what landed, was known, or was rejected.

    Raises:
        UserError: users must be hashed, and not with the salt that was used before.
    """
    counts = {"interactions": 0, "feedback": 0, "duplicates": 0, "rejects": 0}
    options = spec.parsed()
    if not getattr(options, "hashed_users", True) and (salt := os.environ.get(SALT)):
        verify_salt(store.database, salt)
    for lot in SOURCES[spec.kind].read(options, watermark_of(store.database, spec.name)):
        with begin_write(store.database) as connection:
            new_interactions = land_interactions(connection, lot.interactions) if lot.interactions else Landed(0, 0)
            new_feedback = land_feedback(connection, lot.feedback) if lot.feedback else Landed(0, 0)
            counts["rejects"] += _keep_rejects(connection, spec.name, lot)
            connection.execute(source_marks.delete().where(source_marks.c.source == spec.name))
            values = {"source": spec.name, "mark": canonical_json(lot.watermark), "at": now()}
            connection.execute(insert(source_marks), values)
        counts["interactions"] += new_interactions.new
        counts["feedback"] += new_feedback.new
        counts["duplicates"] += new_interactions.duplicates + new_feedback.duplicates
    return counts


def watermark_of(database: Engine, source: str) -> JsonValue | None:
    """Return where a source goes on."""
    with database.connect() as connection:
        row = connection.execute(select(source_marks.c.mark).where(source_marks.c.source == source)).first()
    return None if row is None else cast("JsonValue", json.loads(row[0]))


def rejects_after(database: Engine, cursor: int, limit: int) -> list[RejectedRow]:
    """Read up to `limit` rejected rows after sequence `cursor`."""
    query = select(source_rejects).where(source_rejects.c.seq > cursor).order_by(source_rejects.c.seq).limit(limit)
    with database.connect() as connection:
        return [RejectedRow(**row) for row in connection.execute(query).mappings()]


def _keep_rejects(connection: Connection, source: str, lot: Lot) -> int:
    places = {reject.place: reject for reject in lot.rejects}
    raws = {place: storable(reject.raw)[:RAW_CHARS] for place, reject in places.items()}
    gone = erased_rejects(connection, lot.tenant, list(raws.values())) if raws else set()
    kept = 0
    for place, reject in places.items():
        if raws[place] in gone:
            continue
        known = select(source_rejects.c.seq).where(source_rejects.c.source == source, source_rejects.c.place == place)
        if connection.execute(known).first() is None:
            kept += 1
            connection.execute(
                insert(source_rejects),
                {
                    "source": source,
                    "tenant": lot.tenant,
                    "place": place[:600],
                    "code": reject.code,
                    "detail": storable(reject.detail)[:2_000],
                    "raw": raws[place],
                    "at": now(),
                },
            )
    return kept
