"""Store arena pairs: two answers to one request, shown side by side without names; a person says which is better.

The pair says which version stood where, for whoever compares afterwards; the person's client never learns it from the
answer. A choice is a preference like any other, on an interaction whose arm is "arena": examples made of it carry that
mark, because the answers were shown to learn something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import Column, Connection, Engine, String, Table, delete, insert, or_, select, update

from feedback.events import Feedback, Preference
from feedback.store.store import Receipt, Store, land_feedback
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import NotFound, Unavailable
from infra.settings import Config

Winner = Literal["first", "second", "tie"]

arena_pairs = Table(
    "arena_pairs",
    metadata,
    Column("arena_id", String(64), primary_key=True),
    Column("tenant", String(200), nullable=False, index=True),
    Column("first_id", String(200), nullable=False),
    Column("second_id", String(200), nullable=False),
    Column("first_version", String(200), nullable=False),
    Column("second_version", String(200), nullable=False),
    Column("winner", String(10)),
    Column("actor", String(200)),
    Column("at", UtcDateTime, nullable=False),
)


class Pair(Config):
    """Two answers to one request, in the order in which they were shown."""

    arena_id: str
    """Its id."""
    tenant: str
    """Whose request."""
    first_id: str
    """Interaction of the answer shown first."""
    second_id: str
    """Interaction of the other."""
    first_version: str
    """Who gave the first; not told to the person."""
    second_version: str
    """Who gave the second."""
    winner: Winner | None = None
    """What the person said; None while nobody did."""


class ArenaRow(Config):
    """How one version did against another."""

    version: str
    """The one."""
    against: str
    """The other."""
    wins: int
    """Pairs in which the one was preferred."""
    losses: int
    """Pairs in which the other was."""
    ties: int
    """Pairs in which neither was."""
    open: int
    """Pairs that nobody has judged."""


class _Chosen(Exception):
    """Somebody else's choice of this pair was first."""


def record_pair(database: Engine, pair: Pair) -> None:
    """Keep a pair before it is shown."""
    with begin_write(database) as connection:
        connection.execute(insert(arena_pairs).values(**pair.model_dump(), at=now()))


def choose(
    database: Engine, tenant: str, arena_id: str, winner: Winner, *, actor: str, trusted: bool = False
) -> Receipt | None:
    """Keep a person's choice, once per pair; returns what became of the preference, None for a tie.

    Raises:
        NotFound: the tenant has no such pair.
        Unavailable: its answers have not reached the store yet (the database was away); say it again.
    """
    with database.connect() as connection:
        row = connection.execute(
            select(arena_pairs).where(arena_pairs.c.arena_id == arena_id, arena_pairs.c.tenant == tenant)
        ).first()
    if row is None:
        raise NotFound(f"there is no arena pair {arena_id!r}; send the id that came with the two answers")
    if row.winner is not None:
        return Receipt("duplicate")
    event: Feedback | None = None
    if winner != "tie":
        found = Store(database).interactions_of({(tenant, row.first_id), (tenant, row.second_id)})
        first, second = found.get((tenant, row.first_id)), found.get((tenant, row.second_id))
        if first is None or second is None:
            raise Unavailable("the two answers are not in the store yet; send the choice again in a few seconds")
        better, worse = (first, second) if winner == "first" else (second, first)
        event = Feedback(
            event_id=f"arena-{arena_id}",
            tenant=tenant,
            interaction_id=better.interaction_id,
            actor=actor,
            trusted=trusted,
            kind="preference",
            value=Preference(chosen=better.answer, rejected=worse.answer),
            created_at=now(),
            source="arena",
        )
    try:
        # Both or neither: of two choices at once one is the pair's winner and its preference, the other is nothing.
        with begin_write(database) as connection:
            landed = land_feedback(connection, [event]) if event is not None else None
            noted = connection.execute(
                update(arena_pairs)
                .where(arena_pairs.c.arena_id == arena_id, arena_pairs.c.winner.is_(None))
                .values(winner=winner, actor=actor)
            )
            if noted.rowcount == 0:
                raise _Chosen
    except _Chosen:
        return Receipt("duplicate")
    return None if landed is None else Receipt("stored" if landed.new else "duplicate")


def tally(database: Engine, tenant: str) -> list[ArenaRow]:
    """Count how versions did against one another, by pair of versions; a version against itself is left out."""
    query = select(arena_pairs.c.first_version, arena_pairs.c.second_version, arena_pairs.c.winner)
    counts: dict[tuple[str, str], list[int]] = {}
    with database.connect() as connection:
        for first, second, winner in connection.execute(query.where(arena_pairs.c.tenant == tenant)):
            if first == second:
                continue
            one, other = sorted((first, second))
            row = counts.setdefault((one, other), [0, 0, 0, 0])
            if winner is None or winner == "tie":
                row[3 if winner is None else 2] += 1
            else:
                row[0 if (first if winner == "first" else second) == one else 1] += 1
    return [
        ArenaRow(version=one, against=other, wins=w, losses=lost, ties=t, open=o)
        for (one, other), (w, lost, t, o) in sorted(counts.items())
    ]


def forget_pairs(connection: Connection, tenant: str, interaction_ids: Iterable[str]) -> int:
    """Delete the pairs of these interactions, in the caller's transaction; returns how many."""
    ids, gone = list(interaction_ids), 0
    for start in range(0, len(ids), 400):
        chunk = ids[start : start + 400]
        either = or_(arena_pairs.c.first_id.in_(chunk), arena_pairs.c.second_id.in_(chunk))
        gone += connection.execute(delete(arena_pairs).where(arena_pairs.c.tenant == tenant, either)).rowcount
    return gone
