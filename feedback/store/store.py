"""Store events in SQL: durable before it returns, exactly once by event id.

Feedback may arrive before its interaction, twice, or late. Each feedback gets a line in `feedback_ready` once it can
be used (its interaction is known, it needs none, or it waited too long), so that readers follow one growing sequence
and never have to look back for what was parked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine, func, select

from feedback.events import Feedback, Interaction
from feedback.store.rated_units import RatedUnit, assigned_units, rated_units
from feedback.store.tables import SEQUENCE, feedback, feedback_ready, interactions
from feedback.store.tombstones import filter_erased
from feedback.store.writes import (
    CHUNK,
    Landed,
    chunks_by_tenant,
    insert_feedback,
    known_ids,
    land_feedback,
    land_interactions,
    make_ready,
    requeue,
    serialise_writers,
)
from infra.database.connect import begin_write

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


class Store:
    """Interactions and feedback of all tenants. Every method is one transaction."""

    def __init__(self, database: Engine) -> None:
        self.database = database

    def record_interaction(self, interaction: Interaction) -> bool:
        """Store it durably; feedback that waited for it becomes ready. False when it was there already."""
        with begin_write(self.database) as connection:
            return land_interactions(connection, [interaction]).new == 1

    def record_feedback(self, event: Feedback) -> Receipt:
        """Store it durably, once by (tenant, event_id)."""
        with begin_write(self.database) as connection:
            serialise_writers(connection)
            _, allowed = filter_erased(connection, (), [event])
            if not allowed or known_ids(connection, feedback, "event_id", {(event.tenant, event.event_id)}):
                return Receipt("duplicate")  # also of what a person who was forgotten said before: it was here once
            parked = insert_feedback(connection, [event])
            return Receipt("parked" if parked else "stored")

    def interaction(self, tenant: str, interaction_id: str) -> Interaction | None:
        """Return the interaction of that id, or None."""
        return self.interactions_of({(tenant, interaction_id)}).get((tenant, interaction_id))

    def interactions_of(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Interaction]:
        """Return those of the (tenant, interaction_id) pairs that are known."""
        interactions_by_id: dict[tuple[str, str], Interaction] = {}
        with self.database.connect() as connection:
            for tenant, chunk in chunks_by_tenant(ids):
                rows = connection.execute(
                    select(interactions.c.interaction_id, interactions.c.body).where(
                        interactions.c.tenant == tenant, interactions.c.interaction_id.in_(chunk)
                    )
                )
                interactions_by_id.update({(tenant, row[0]): Interaction.model_validate_json(row[1]) for row in rows})
        return interactions_by_id

    def known(
        self, answers: Sequence[Interaction], events: Sequence[Feedback]
    ) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """Return (tenant, id) of those of the interactions, and of the feedback, that are here already."""
        with self.database.connect() as connection:
            return (
                known_ids(connection, interactions, "interaction_id", {(i.tenant, i.interaction_id) for i in answers}),
                known_ids(connection, feedback, "event_id", {(f.tenant, f.event_id) for f in events}),
            )

    def feedback_for(self, tenant: str, interaction_id: str) -> list[Feedback]:
        """Read all feedback on one interaction, in the order it was stored."""
        query = (
            select(feedback.c.body)
            .where(feedback.c.tenant == tenant, feedback.c.interaction_id == interaction_id)
            .order_by(feedback.c.seq)
        )
        with self.database.connect() as connection:
            return [Feedback.model_validate_json(row[0]) for row in connection.execute(query)]

    def ready_for(
        self, ids: Iterable[tuple[str, str]], through: int, known: Sequence[Ready] = ()
    ) -> dict[tuple[str, str], list[Ready]]:
        """Read feedback on these interactions, ready at or before sequence `through`, in the order it was stored.

        One that was made ready again (released from quarantine) appears once, at its latest turn. What is `known`
        already is not read again.
        """
        read = {earlier.feedback_seq: earlier.feedback for earlier in known}
        ready: dict[tuple[str, str], list[Ready]] = {}
        with self.database.connect() as connection:
            for tenant, chunk in chunks_by_tenant(ids):
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
                for start in range(0, len(missing), CHUNK):
                    bodies = select(feedback.c.seq, feedback.c.body).where(
                        feedback.c.seq.in_(missing[start : start + CHUNK])
                    )
                    read.update((seq, Feedback.model_validate_json(body)) for seq, body in connection.execute(bodies))
                for ready_seq, feedback_seq, received in turns:
                    event = read[feedback_seq]
                    key = (tenant, event.interaction_id or event.event_id)
                    ready.setdefault(key, []).append(Ready(ready_seq, event, feedback_seq, False, received))
        return ready

    def interactions_after(self, cursor: int, limit: int) -> list[tuple[int, Interaction]]:
        """Read up to `limit` interactions stored after sequence `cursor`, with their sequence."""
        query = (
            select(interactions.c.seq, interactions.c.body)
            .where(interactions.c.seq > cursor)
            .order_by(interactions.c.seq)
            .limit(limit)
        )
        with self.database.connect() as connection:
            return [(row[0], Interaction.model_validate_json(row[1])) for row in connection.execute(query)]

    def feedback_after(self, cursor: int, limit: int) -> list[Ready]:
        """Read up to `limit` feedback whose turn came after sequence `cursor`, in order."""
        query = (
            select(
                feedback_ready.c.seq, feedback.c.body, feedback.c.seq, feedback_ready.c.orphan, feedback.c.received_at
            )
            .join(feedback, feedback.c.seq == feedback_ready.c.feedback_seq)
            .where(feedback_ready.c.seq > cursor)
            .order_by(feedback_ready.c.seq)
            .limit(limit)
        )
        with self.database.connect() as connection:
            return [
                Ready(seq, Feedback.model_validate_json(body), feedback_seq, bool(orphan), received)
                for seq, body, feedback_seq, orphan, received in connection.execute(query)
            ]

    def waiting_after(self, cursor: int, limit: int) -> list[tuple[int, Feedback]]:
        """Read up to `limit` feedback after sequence `cursor` whose interaction has not come, with their sequence."""
        query = (
            select(feedback.c.seq, feedback.c.body)
            .where(feedback.c.seq > cursor, feedback.c.waiting.is_(True))
            .order_by(feedback.c.seq)
            .limit(limit)
        )
        with self.database.connect() as connection:
            return [(row[0], Feedback.model_validate_json(row[1])) for row in connection.execute(query)]

    def ready_count(self, cursor: int) -> int:
        """Count the turns come after `cursor`."""
        with self.database.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(feedback_ready).where(feedback_ready.c.seq > cursor)
            ).scalar_one()

    def parked(self) -> int:
        """Count the feedback that waits for an interaction that has not come."""
        with self.database.connect() as connection:
            return connection.execute(
                select(func.count()).select_from(feedback).where(feedback.c.waiting.is_(True))
            ).scalar_one()

    def give_up_waiting(self, older_than: datetime) -> int:
        """Make feedback that was received before `older_than` and still waits ready, as orphans. Returns how many."""
        with begin_write(self.database) as connection:
            serialise_writers(connection)
            waiting = select(feedback.c.seq).where(feedback.c.waiting.is_(True), feedback.c.received_at < older_than)
            orphans = [row[0] for row in connection.execute(waiting.order_by(feedback.c.seq))]
            make_ready(connection, orphans, orphan=True)
            return len(orphans)

    def make_ready_again(self, tenant: str, event_ids: Sequence[str]) -> int:
        """Give stored feedback another turn (a person released it). Returns how many were found."""
        with begin_write(self.database) as connection:
            return requeue(connection, tenant, event_ids)

    def rated_units(self, tenant: str, release_seq: int, *, window_s: float | None = None) -> list[RatedUnit]:
        """See `feedback.store.rated_units.rated_units`."""
        return rated_units(self.database, tenant, release_seq, window_s=window_s)

    def assigned_units(self, tenant: str, release_seq: int) -> dict[str, int]:
        """See `feedback.store.rated_units.assigned_units`."""
        return assigned_units(self.database, tenant, release_seq)
