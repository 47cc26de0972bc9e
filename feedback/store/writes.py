"""Write events to the store, inside the caller's transaction: what is new of a lot, and when feedback gets its turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, text

from feedback.events import Feedback, Interaction, score_of
from feedback.store.tables import feedback, feedback_ready, interactions
from feedback.store.tombstones import filter_erased
from infra.database.connect import now

CHUNK = 400
"""Ids in one IN (...): well below every database's limit of parameters."""


@dataclass(frozen=True)
class Landed:
    """How many of a lot were new, and how many were there already."""

    new: int
    duplicates: int


def land_interactions(connection: Connection, lot: Sequence[Interaction]) -> Landed:
    """Insert what is new of `lot` inside the caller's write transaction, and wake the feedback that waited for it."""
    serialise_writers(connection)
    allowed, _ = filter_erased(connection, lot, ())
    unique = {(i.tenant, i.interaction_id): i for i in reversed(allowed)}
    known = known_ids(connection, interactions, "interaction_id", unique.keys())
    fresh = [i for key, i in reversed(unique.items()) if key not in known]
    if fresh:
        connection.execute(insert(interactions), [_interaction_row(i) for i in fresh])
    for tenant, chunk in chunks_by_tenant((i.tenant, i.interaction_id) for i in fresh):
        waiting = select(feedback.c.seq).where(
            feedback.c.tenant == tenant, feedback.c.interaction_id.in_(chunk), feedback.c.waiting.is_(True)
        )
        make_ready(connection, [row[0] for row in connection.execute(waiting.order_by(feedback.c.seq))], orphan=False)
    return Landed(len(fresh), len(lot) - len(fresh))


def land_feedback(connection: Connection, lot: Sequence[Feedback]) -> Landed:
    """Insert what is new of `lot` inside the caller's write transaction."""
    serialise_writers(connection)
    _, allowed = filter_erased(connection, (), lot)
    unique = {(f.tenant, f.event_id): f for f in reversed(allowed)}
    known = known_ids(connection, feedback, "event_id", unique.keys())
    fresh = [f for key, f in reversed(unique.items()) if key not in known]
    insert_feedback(connection, fresh)
    return Landed(len(fresh), len(lot) - len(fresh))


def requeue(connection: Connection, tenant: str, event_ids: Sequence[str]) -> int:
    """Give stored feedback another turn, inside the caller's write transaction. Returns how many were found."""
    serialise_writers(connection)
    seqs: list[int] = []
    for name, chunk in chunks_by_tenant((tenant, event_id) for event_id in event_ids):
        query = select(feedback.c.seq).where(feedback.c.tenant == name, feedback.c.event_id.in_(chunk))
        seqs += connection.scalars(query)
    make_ready(connection, sorted(seqs), orphan=False)
    return len(seqs)


def serialise_writers(connection: Connection) -> None:
    """Make sequence order the order of commits, so that a reader's cursor never jumps over a slower writer.

    SQLite has one writer at a time already; Postgres gives sequence values out before commit, so writers queue here.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7203641)"))


def insert_feedback(connection: Connection, fresh: Sequence[Feedback]) -> int:
    """Insert feedback known to be new. Returns how many of them had to be parked."""
    if not fresh:
        return 0
    wanted = {(f.tenant, f.interaction_id) for f in fresh if f.interaction_id is not None}
    there = known_ids(connection, interactions, "interaction_id", wanted)
    received = now()
    rows = [
        {
            "tenant": f.tenant,
            "event_id": f.event_id,
            "interaction_id": f.interaction_id,
            "actor": f.actor,
            "trusted": f.trusted,
            "kind": f.kind,
            "score": score_of(f.value),
            "created_at": f.created_at,
            "received_at": received,
            "waiting": f.interaction_id is not None and (f.tenant, f.interaction_id) not in there,
            "body": f.model_dump_json(),
        }
        for f in fresh
    ]
    last = connection.execute(select(func.coalesce(func.max(feedback.c.seq), 0))).scalar_one()
    connection.execute(insert(feedback), rows)
    added = select(feedback.c.seq).where(feedback.c.seq > last, feedback.c.waiting.is_(False)).order_by(feedback.c.seq)
    make_ready(connection, [row[0] for row in connection.execute(added)], orphan=False)
    return sum(1 for row in rows if row["waiting"])


def make_ready(connection: Connection, seqs: Sequence[int], *, orphan: bool) -> None:
    """Give feedback with these sequences its turn."""
    if not seqs:
        return
    connection.execute(insert(feedback_ready), [{"feedback_seq": seq, "orphan": orphan} for seq in seqs])
    for start in range(0, len(seqs), CHUNK):
        chunk = seqs[start : start + CHUNK]
        connection.execute(
            feedback.update().where(feedback.c.seq.in_(chunk), feedback.c.waiting.is_(True)).values(waiting=False)
        )


def known_ids(
    connection: Connection, table: Table, column: str, keys: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return those of the (tenant, id) keys that the table holds in that column."""
    known: set[tuple[str, str]] = set()
    for tenant, chunk in chunks_by_tenant(keys):
        query = select(table.c[column]).where(table.c.tenant == tenant, table.c[column].in_(chunk))
        known.update((tenant, row[0]) for row in connection.execute(query))
    return known


def chunks_by_tenant(keys: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    """Part (tenant, id) keys into (tenant, ids) that one IN (...) takes."""
    by_tenant: dict[str, list[str]] = {}
    for tenant, key in keys:
        by_tenant.setdefault(tenant, []).append(key)
    for tenant, ids in by_tenant.items():
        for start in range(0, len(ids), CHUNK):
            yield tenant, ids[start : start + CHUNK]


def _interaction_row(interaction: Interaction) -> dict[str, Any]:
    routing = interaction.routing
    return {
        "tenant": interaction.tenant,
        "interaction_id": interaction.interaction_id,
        "user": interaction.user,
        "version": interaction.version,
        "created_at": interaction.created_at,
        "release_seq": routing.release_seq if routing else None,
        "arm": routing.arm if routing else None,
        "unit": routing.unit if routing else None,
        "probability": routing.probability if routing else None,
        "body": interaction.model_dump_json(),
    }
