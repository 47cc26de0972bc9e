"""Erase a person's rows from the SQL store, and write the record that stays."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, or_, select, update

from feedback.erasure.belongings import Belongings
from feedback.erasure.rejects import GONE, names_person
from feedback.lake.quarantine import quarantine_releases
from feedback.sources.landing import source_rejects
from feedback.store.store import Store, feedback, feedback_ready, interactions, requeue
from feedback.store.tombstones import Tombstone, write_tombstone
from infra.database.connect import begin_write

_CHUNK = 400


def erase_from_store(
    store: Store, belongings: Belongings, tombstone: Tombstone, raw: str | None, again: Sequence[str] = ()
) -> dict[str, int]:
    """Delete the rows and write the record in one transaction; others' words on the same answers get another turn.

    So do the events in `again`.
    """
    removed: dict[str, int] = {}
    with begin_write(store.database) as connection:
        theirs = or_(feedback.c.actor == belongings.person, feedback.c.event_id.in_(sorted(belongings.events)[:_CHUNK]))
        seqs = list(connection.scalars(select(feedback.c.seq).where(feedback.c.tenant == belongings.tenant, theirs)))
        rest = sorted(belongings.events)[_CHUNK:]
        for start in range(0, len(rest), _CHUNK):
            more = feedback.c.event_id.in_(rest[start : start + _CHUNK])
            seqs += list(connection.scalars(select(feedback.c.seq).where(feedback.c.tenant == belongings.tenant, more)))
        for start in range(0, len(seqs), _CHUNK):
            chunk = seqs[start : start + _CHUNK]
            connection.execute(delete(feedback_ready).where(feedback_ready.c.feedback_seq.in_(chunk)))
            connection.execute(delete(feedback).where(feedback.c.seq.in_(chunk)))
        removed["store feedback"] = len(seqs)
        mine = (interactions.c.tenant == belongings.tenant) & (interactions.c.user == belongings.person)
        removed["store interactions"] = connection.execute(delete(interactions).where(mine)).rowcount
        for start in range(0, len(belongings.events), _CHUNK):
            chunk_of = sorted(belongings.events)[start : start + _CHUNK]
            held = (quarantine_releases.c.tenant == belongings.tenant) & quarantine_releases.c.event_id.in_(chunk_of)
            connection.execute(delete(quarantine_releases).where(held))
        barred, removed["rejected rows"] = _scrub_rejects(connection, belongings, raw)
        requeue(connection, belongings.tenant, again)
        others = sorted(belongings.subjects - belongings.interactions)
        for start in range(0, len(others), _CHUNK):
            about = (feedback.c.tenant == belongings.tenant) & feedback.c.interaction_id.in_(
                others[start : start + _CHUNK]
            )
            requeue(connection, belongings.tenant, list(connection.scalars(select(feedback.c.event_id).where(about))))
        total = {**tombstone.removed, **removed}
        write_tombstone(
            connection,
            tombstone.model_copy(update={"removed": total}),
            sorted(belongings.interactions),
            sorted(belongings.events),
            barred,
        )
    if store.database.dialect.name == "sqlite":
        with store.database.connect() as connection:  # deleted rows stay in free pages until the file is rewritten
            raw_connection = connection.connection.dbapi_connection
            assert raw_connection is not None
            raw_connection.execute("VACUUM")
            raw_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def _scrub_rejects(connection: Connection, belongings: Belongings, raw: str | None) -> tuple[list[str], int]:
    """Rows of files that could not be read may name a person all the same: their text is taken away. Returns it, to
    bar it, and how many rows held it."""
    holds = names_person(belongings.tenant, belongings.person, raw) & (source_rejects.c.raw != GONE)
    texts = [str(text) for text in connection.scalars(select(source_rejects.c.raw).where(holds))]
    return texts, connection.execute(update(source_rejects).where(holds).values(raw=GONE, detail=GONE)).rowcount
