"""Keep tombstones of erased persons: a line without content, and a bar against being brought in again.

Persons, their interactions and the feedback that went with them are kept as hashes. A source that is read again (a file
that changed, a database's last rows) does not bring back what was said before the person was forgotten, whatever time
its rows bear; what they say afterwards is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import JSON, Column, Connection, Engine, Integer, String, Table, Text, insert, select

from feedback.events import Feedback, Interaction
from infra.database.connect import UtcDateTime, metadata
from infra.stored_model import Stored

forgotten = Table(
    "forgotten",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", String(200), nullable=False, index=True),
    Column("person", String(64), nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("removed", JSON, nullable=False),
    Column("snapshots", JSON, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

forgotten_interactions = Table(
    "forgotten_interactions",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("interaction", String(64), primary_key=True),
)
"""Hashes of interactions, of feedback events (`_event`), and of rows that could not be read (`_reject`)."""


class Tombstone(Stored):
    """What is known of somebody who was erased."""

    tenant: str
    """Whose data it was."""
    person: str
    """Hash of the person's pseudonym."""
    removed: dict[str, int]
    """Rows taken away, by place."""
    snapshots: tuple[str, ...]
    """Snapshots that held them."""
    versions: tuple[str, ...]
    """Versions that were trained on them."""
    by: str
    """Who asked."""
    reason: str
    """Why."""
    at: datetime
    """When (UTC)."""


def name_hash(tenant: str, name: str) -> str:
    """Hash a name, apart for each tenant: all that is kept of it."""
    return hashlib.sha256(f"{tenant}\0{name}".encode()).hexdigest()


def tombstones(database: Engine, tenant: str | None = None) -> list[Tombstone]:
    """List everybody who was erased, in order."""
    query = select(forgotten).order_by(forgotten.c.id)
    if tenant is not None:
        query = query.where(forgotten.c.tenant == tenant)
    with database.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return [Tombstone.model_validate({k: v for k, v in row.items() if k != "id"}) for row in rows]


def _event(event_id: str) -> str:
    """An event's name among those of interactions, whose ids may be the same."""
    return f"event\0{event_id}"


def _reject(raw: str) -> str:
    return f"reject\0{raw}"


def write_tombstone(
    connection: Connection,
    tombstone: Tombstone,
    interactions: Sequence[str],
    events: Sequence[str],
    rejects: Sequence[str] = (),
) -> None:
    """Write the record, inside the transaction that takes the rows away.

    Args:
        rejects: raw text of the person's rows of files that could not be read.
    """
    connection.execute(insert(forgotten), {**tombstone.model_dump(mode="json", exclude={"at"}), "at": tombstone.at})
    names = dict.fromkeys([*interactions, *map(_event, events), *map(_reject, rejects)])
    marks = [{"tenant": tombstone.tenant, "interaction": name_hash(tombstone.tenant, name)} for name in names]
    table = forgotten_interactions
    known = set(connection.scalars(select(table.c.interaction).where(table.c.tenant == tombstone.tenant)))
    fresh = [mark for mark in marks if mark["interaction"] not in known]
    if fresh:
        connection.execute(insert(table), fresh)


def erased_rejects(connection: Connection, tenant: str, raws: Sequence[str]) -> set[str]:
    """Return those raw texts of unreadable rows that were an erased person's."""
    marks = {name_hash(tenant, _reject(raw)): raw for raw in raws}
    table, names, erased = forgotten_interactions, sorted(marks), set[str]()
    for start in range(0, len(names), 400):
        chunk = table.c.interaction.in_(names[start : start + 400])
        erased |= {marks[mark] for mark in connection.scalars(select(table.c.interaction).where(chunk))}
    return erased


def filter_erased(
    connection: Connection, interactions: Sequence[Interaction], feedback: Sequence[Feedback]
) -> tuple[list[Interaction], list[Feedback]]:
    """Filter out what an erased person said before they were erased."""
    names = {i.tenant for i in interactions} | {f.tenant for f in feedback}
    query = select(forgotten.c.tenant, forgotten.c.person, forgotten.c.at).where(forgotten.c.tenant.in_(names))
    gone = {(tenant, person): at for tenant, person, at in connection.execute(query)}
    if not gone:
        return list(interactions), list(feedback)
    table = forgotten_interactions
    wanted = {(i.tenant, name_hash(i.tenant, i.interaction_id)) for i in interactions}
    wanted |= {(f.tenant, name_hash(f.tenant, f.interaction_id)) for f in feedback if f.interaction_id is not None}
    wanted |= {(f.tenant, name_hash(f.tenant, _event(f.event_id))) for f in feedback}
    marks = sorted(mark for _, mark in wanted)
    barred: set[tuple[str, str]] = set()
    for start in range(0, len(marks), 400):
        rows = connection.execute(
            select(table.c.tenant, table.c.interaction).where(table.c.interaction.in_(marks[start : start + 400]))
        )
        barred |= {(tenant, mark) for tenant, mark in rows}

    def theirs(tenant: str, person: str | None, names: Sequence[str | None], at: datetime) -> bool:
        if any(name is not None and (tenant, name_hash(tenant, name)) in barred for name in names):
            return True
        left = gone.get((tenant, name_hash(tenant, person))) if person is not None else None
        return left is not None and at <= left

    return (
        [i for i in interactions if not theirs(i.tenant, i.user, (i.interaction_id,), i.created_at)],
        [f for f in feedback if not theirs(f.tenant, f.actor, (f.interaction_id, _event(f.event_id)), f.created_at)],
    )
