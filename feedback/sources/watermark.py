"""Check that a database is still the one that a reader's cursor (watermark) was taken from.

A cursor is a sequence number, and a database that was restored from a backup gives the same numbers out a second time:
whoever goes on after the cursor then skips what came meanwhile, in silence. So every cursor that is kept outside of
its database is kept with a fingerprint of the row at it. A backup holds every name and id that the database has, so no
id of the database could tell the two apart; the row at the cursor does, also once the new rows have passed the cursor.
"""

from __future__ import annotations

from sqlalchemy import Engine, Table, func, inspect, select, text

from feedback.lake.lake import Lake, Manifest
from feedback.sources.landing import source_rejects
from feedback.store.store import Store, feedback, feedback_ready, interactions
from infra.artifact import key_of
from infra.errors import CorruptArtifact

_DIGITS = 32


def fingerprint(database: Engine, table: Table, seq: int) -> str | None:
    """Hash what never changes of the row with this sequence number; None where there is none (any more)."""
    columns = {
        feedback_ready: (feedback.c.tenant, feedback.c.event_id, feedback.c.received_at),
        feedback: (feedback.c.tenant, feedback.c.event_id, feedback.c.received_at),
        interactions: (interactions.c.tenant, interactions.c.interaction_id, interactions.c.created_at),
        source_rejects: (source_rejects.c.source, source_rejects.c.place, source_rejects.c.at),
    }[table]
    query = select(*columns).where(table.c.seq == seq)
    if table is feedback_ready:
        query = query.join(feedback, feedback.c.seq == feedback_ready.c.feedback_seq)
    with database.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else key_of([*row[:-1], row[-1].isoformat()])[:_DIGITS]


def high_water(database: Engine, table: Table) -> int:
    """Return the highest sequence number ever given out: it stays when `ratchet forget` deletes the last rows."""
    name = table.name
    with database.connect() as connection:
        there = int(connection.execute(select(func.coalesce(func.max(table.c.seq), 0))).scalar_one())
        given: int | None = None
        if database.dialect.name == "sqlite" and inspect(connection).has_table("sqlite_sequence"):
            query = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
            given = connection.execute(query, {"name": name}).scalar()
        elif database.dialect.name == "postgresql":
            sequence = connection.execute(text("SELECT pg_get_serial_sequence(:name, 'seq')"), {"name": name}).scalar()
            if sequence is not None:  # its own name, from the database
                query = text(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
                given = connection.execute(query).scalar()
    return max(there, int(given or 0))


def watermark_mismatch(database: Engine, table: Table, cursor: int, mark: str | None) -> str | None:
    """Say why the database is not the one that `cursor` was taken from, or None where it may be.

    Args:
        mark: fingerprint of the row at the cursor when it was read; None where none was kept.
    """
    if cursor == 0:
        return None
    highest = high_water(database, table)
    if highest < cursor:
        return f"it was read up to number {cursor} of {table.name}, but the database has given out {highest} only"
    there = fingerprint(database, table, cursor) if mark is not None else None
    if there is not None and there != mark:
        return f"it was read up to number {cursor} of {table.name}, and number {cursor} (of {highest}) is another now"
    return None


def with_fingerprints(store: Store, manifest: Manifest) -> Manifest:
    """Return the manifest with fingerprints of the store's rows at its cursors."""
    return manifest.model_copy(
        update={
            "cursor_mark": fingerprint(store.database, feedback_ready, manifest.cursor),
            "rejects_mark": fingerprint(store.database, source_rejects, manifest.rejects_cursor),
        }
    )


def store_mismatch(store: Store, manifest: Manifest) -> str | None:
    """Say why the store is not the one that this batch was read from; None where it may be."""
    return watermark_mismatch(
        store.database, feedback_ready, manifest.cursor, manifest.cursor_mark
    ) or watermark_mismatch(store.database, source_rejects, manifest.rejects_cursor, manifest.rejects_mark)


def verify_store(store: Store, lake: Lake) -> None:
    """Check that the lake was filled from this store, the batch that is staged included.

    Raises:
        CorruptArtifact: the database was restored from a backup and the lake was not, or it is another database.
    """
    staged = lake.staged()
    newest = staged[0] if staged is not None else lake.last()
    why = store_mismatch(store, newest) if newest is not None else None
    if newest is not None and why is not None:
        raise CorruptArtifact(
            f"the lake at {lake.path} was filled from another database, or this one was restored from a backup alone: "
            f"{why} (batch {newest.batch}); restore both from the same moment, or, to go on with what the database "
            "holds, run `ratchet data accept-store`"
        )
