"""The SQL store of events: durable before it returns, exactly once by event id.

Feedback may arrive before its interaction, twice, or late. Each feedback gets a line in `feedback_ready` once it can
be used (its interaction is known, it needs none, or it waited too long), so that readers follow one growing sequence
and never have to look back for what was parked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Table, func, insert, select, text

from feedback.events import Feedback, Interaction, score_of
from feedback.store.rated_units import RatedUnit, assigned_units, rated_units
from feedback.store.tables import SEQUENCE, feedback, feedback_ready, interactions
from feedback.store.tombstones import filter_erased
from infra.database.connect import begin_write, now

__all__ = [
    "SEQUENCE",
    "Landed",
    "RatedUnit",
    "Ready",
    "Receipt",
    "Store",
    "feedback",
    "feedback_ready",
    "interactions",
    "land_feedback",
    "land_interactions",
    "requeue",
]

_CHUNK = 400  # ids in one IN (...): well below every database's limit of parameters


@dataclass(frozen=True)
class Receipt:
    """What became of one feedback: `stored`, `duplicate` (event id seen before), `parked` (interaction unknown yet)."""

    status: Literal["stored", "duplicate", "parked"]


@dataclass(frozen=True)
class Ready:
    """A feedback whose turn has come. `seq` grows; `orphan` when its interaction never came; `received_at`: when it was
    stored here, by our own clock."""

    seq: int
    feedback: Feedback
    feedback_seq: int
    orphan: bool
    received_at: datetime


@dataclass(frozen=True)
class Landed:
    """How many of a lot were new, and how many were there already."""

    new: int
    duplicates: int


class Store:
    """Interactions and feedback of all tenants. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def record_interaction(self, interaction: Interaction) -> bool:
        """Store it durably; feedback that waited for it becomes ready. False when it was there already."""
        with begin_write(self.engine) as connection:
            return land_interactions(connection, [interaction]).new == 1

    def record_feedback(self, event: Feedback) -> Receipt:
        """Store it durably, once by (tenant, event_id)."""
        with begin_write(self.engine) as connection:
            _in_order(connection)
            _, allowed = filter_erased(connection, (), [event])
            if not allowed or _known(connection, feedback, "event_id", {(event.tenant, event.event_id)}):
                return Receipt("duplicate")  # also of what a person who was forgotten said before: it was here once
            parked = _insert_feedback(connection, [event])
            return Receipt("parked" if parked else "stored")

    def interaction(self, tenant: str, interaction_id: str) -> Interaction | None:
        """The interaction of that id, or None."""
        found = self.interactions_of({(tenant, interaction_id)})
        return found.get((tenant, interaction_id))

    def interactions_of(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Interaction]:
        """Those of the (tenant, interaction_id) pairs that are known."""
        found: dict[tuple[str, str], Interaction] = {}
        with self.engine.connect() as connection:
            for tenant, chunk in _chunks(ids):
                rows = connection.execute(
                    select(interactions.c.interaction_id, interactions.c.body).where(
                        interactions.c.tenant == tenant, interactions.c.interaction_id.in_(chunk)
                    )
                )
                found.update({(tenant, row[0]): Interaction.model_validate_json(row[1]) for row in rows})
        return found

    def known(
        self, answers: Sequence[Interaction], events: Sequence[Feedback]
    ) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """(tenant, id) of those of the interactions, and of the feedback, that are here already."""
        with self.engine.connect() as connection:
            return (
                _known(connection, interactions, "interaction_id", {(i.tenant, i.interaction_id) for i in answers}),
                _known(connection, feedback, "event_id", {(f.tenant, f.event_id) for f in events}),
            )

    def feedback_for(self, tenant: str, interaction_id: str) -> list[Feedback]:
        """All feedback on one interaction, in the order it was stored."""
        query = (
            select(feedback.c.body)
            .where(feedback.c.tenant == tenant, feedback.c.interaction_id == interaction_id)
            .order_by(feedback.c.seq)
        )
        with self.engine.connect() as connection:
            return [Feedback.model_validate_json(row[0]) for row in connection.execute(query)]

    def ready_for(
        self, ids: Iterable[tuple[str, str]], through: int, known: Sequence[Ready] = ()
    ) -> dict[tuple[str, str], list[Ready]]:
        """Feedback on these interactions that was ready at or before sequence `through`, in the order it was stored.

        One that was made ready again (released from quarantine) appears once, at its latest turn. What is `known`
        already is not read again.
        """
        read = {ready.feedback_seq: ready.feedback for ready in known}
        found: dict[tuple[str, str], list[Ready]] = {}
        with self.engine.connect() as connection:
            for tenant, chunk in _chunks(ids):
                query = (
                    select(func.max(feedback_ready.c.seq), feedback.c.seq, feedback.c.received_at)
                    .join(feedback, feedback.c.seq == feedback_ready.c.feedback_seq)
                    .where(
                        feedback.c.tenant == tenant,
                        feedback.c.interaction_id.in_(chunk),
                        feedback_ready.c.seq <= through,
                        feedback_ready.c.orphan.is_(False),
                    )
                    .group_by(feedback.c.seq, feedback.c.received_at)
                    .order_by(feedback.c.seq)
                )
                turns = connection.execute(query).all()
                missing = [seq for _, seq, _ in turns if seq not in read]
                for start in range(0, len(missing), _CHUNK):
                    bodies = select(feedback.c.seq, feedback.c.body).where(
                        feedback.c.seq.in_(missing[start : start + _CHUNK])
                    )
                    read.update((seq, Feedback.model_validate_json(body)) for seq, body in connection.execute(bodies))
                for ready_seq, feedback_seq, received in turns:
                    event = read[feedback_seq]
                    key = (tenant, event.interaction_id or event.event_id)
                    found.setdefault(key, []).append(Ready(ready_seq, event, feedback_seq, False, received))
        return found

    def interactions_after(self, cursor: int, limit: int) -> list[tuple[int, Interaction]]:
        """Up to `limit` interactions stored after sequence `cursor`, with their sequence."""
        query = (
            select(interactions.c.seq, interactions.c.body)
            .where(interactions.c.seq > cursor)
            .order_by(interactions.c.seq)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [(row[0], Interaction.model_validate_json(row[1])) for row in connection.execute(query)]

    def feedback_after(self, cursor: int, limit: int) -> list[Ready]:
        """Up to `limit` feedback whose turn came after sequence `cursor`, in order."""
        query = (
            select(
                feedback_ready.c.seq, feedback.c.body, feedback.c.seq, feedback_ready.c.orphan, feedback.c.received_at
            )
            .join(feedback, feedback.c.seq == feedback_ready.c.feedback_seq)
            .where(feedback_ready.c.seq > cursor)
            .order_by(feedback_ready.c.seq)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [
                Ready(seq, Feedback.model_validate_json(body), feedback_seq, bool(orphan), received)
                for seq, body, feedback_seq, orphan, received in connection.execute(query)
            ]

    def waiting_after(self, cursor: int, limit: int) -> list[tuple[int, Feedback]]:
        """Up to `limit` feedback stored after sequence `cursor` whose interaction has not come, with their sequence."""
        query = (
            select(feedback.c.seq, feedback.c.body)
            .where(feedback.c.seq > cursor, feedback.c.waiting.is_(True))
            .order_by(feedback.c.seq)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [(row[0], Feedback.model_validate_json(row[1])) for row in connection.execute(query)]

    def ready_count(self, cursor: int) -> int:
        """How many turns come after `cursor`."""
        with self.engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(feedback_ready).where(feedback_ready.c.seq > cursor)
            ).scalar_one()

    def parked(self) -> int:
        """How many feedback wait for an interaction that has not come."""
        with self.engine.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(feedback).where(feedback.c.waiting.is_(True))
            ).scalar_one()

    def give_up_waiting(self, older_than: datetime) -> int:
        """Make feedback that was received before `older_than` and still waits ready, as orphans. Returns how many."""
        with begin_write(self.engine) as connection:
            _in_order(connection)
            waiting = select(feedback.c.seq).where(feedback.c.waiting.is_(True), feedback.c.received_at < older_than)
            orphans = [row[0] for row in connection.execute(waiting.order_by(feedback.c.seq))]
            _make_ready(connection, orphans, orphan=True)
            return len(orphans)

    def make_ready_again(self, tenant: str, event_ids: Sequence[str]) -> int:
        """Give stored feedback another turn (a person released it). Returns how many were found."""
        with begin_write(self.engine) as connection:
            return requeue(connection, tenant, event_ids)

    def rated_units(self, tenant: str, release_seq: int, *, window_s: float | None = None) -> list[RatedUnit]:
        """See `feedback.store.rated_units.rated_units`."""
        return rated_units(self.engine, tenant, release_seq, window_s=window_s)

    def assigned_units(self, tenant: str, release_seq: int) -> dict[str, int]:
        """See `feedback.store.rated_units.assigned_units`."""
        return assigned_units(self.engine, tenant, release_seq)


def land_interactions(connection: Connection, lot: Sequence[Interaction]) -> Landed:
    """Insert what is new of `lot` inside the caller's write transaction, and wake the feedback that waited for it."""
    _in_order(connection)
    allowed, _ = filter_erased(connection, lot, ())
    unique = {(i.tenant, i.interaction_id): i for i in reversed(allowed)}
    known = _known(connection, interactions, "interaction_id", unique.keys())
    fresh = [i for key, i in reversed(unique.items()) if key not in known]
    if fresh:
        connection.execute(insert(interactions), [_interaction_row(i) for i in fresh])
    for tenant, chunk in _chunks((i.tenant, i.interaction_id) for i in fresh):
        waiting = select(feedback.c.seq).where(
            feedback.c.tenant == tenant, feedback.c.interaction_id.in_(chunk), feedback.c.waiting.is_(True)
        )
        _make_ready(connection, [row[0] for row in connection.execute(waiting.order_by(feedback.c.seq))], orphan=False)
    return Landed(len(fresh), len(lot) - len(fresh))


def land_feedback(connection: Connection, lot: Sequence[Feedback]) -> Landed:
    """Insert what is new of `lot` inside the caller's write transaction."""
    _in_order(connection)
    _, allowed = filter_erased(connection, (), lot)
    unique = {(f.tenant, f.event_id): f for f in reversed(allowed)}
    known = _known(connection, feedback, "event_id", unique.keys())
    fresh = [f for key, f in reversed(unique.items()) if key not in known]
    _insert_feedback(connection, fresh)
    return Landed(len(fresh), len(lot) - len(fresh))


def requeue(connection: Connection, tenant: str, event_ids: Sequence[str]) -> int:
    """Give stored feedback another turn, inside the caller's write transaction. Returns how many were found."""
    _in_order(connection)
    found: list[int] = []
    for name, chunk in _chunks((tenant, event_id) for event_id in event_ids):
        query = select(feedback.c.seq).where(feedback.c.tenant == name, feedback.c.event_id.in_(chunk))
        found += connection.scalars(query)
    _make_ready(connection, sorted(found), orphan=False)
    return len(found)


def _in_order(connection: Connection) -> None:
    """Make sequence order the order of commits, so that a reader's cursor never jumps over a slower writer.

    SQLite has one writer at a time already; Postgres gives sequence values out before commit, so writers queue here.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7203641)"))


def _insert_feedback(connection: Connection, fresh: Sequence[Feedback]) -> int:
    """Insert feedback known to be new. Returns how many of them had to be parked."""
    if not fresh:
        return 0
    wanted = {(f.tenant, f.interaction_id) for f in fresh if f.interaction_id is not None}
    there = _known(connection, interactions, "interaction_id", wanted)
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
    _make_ready(connection, [row[0] for row in connection.execute(added)], orphan=False)
    return sum(1 for row in rows if row["waiting"])


def _make_ready(connection: Connection, seqs: Sequence[int], *, orphan: bool) -> None:
    if not seqs:
        return
    connection.execute(insert(feedback_ready), [{"feedback_seq": seq, "orphan": orphan} for seq in seqs])
    for start in range(0, len(seqs), _CHUNK):
        chunk = seqs[start : start + _CHUNK]
        connection.execute(
            feedback.update().where(feedback.c.seq.in_(chunk), feedback.c.waiting.is_(True)).values(waiting=False)
        )


def _known(connection: Connection, table: Table, column: str, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for tenant, chunk in _chunks(keys):
        query = select(table.c[column]).where(table.c.tenant == tenant, table.c[column].in_(chunk))
        found.update((tenant, row[0]) for row in connection.execute(query))
    return found


def _chunks(keys: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    by_tenant: dict[str, list[str]] = {}
    for tenant, key in keys:
        by_tenant.setdefault(tenant, []).append(key)
    for tenant, ids in by_tenant.items():
        for start in range(0, len(ids), _CHUNK):
            yield tenant, ids[start : start + _CHUNK]


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
