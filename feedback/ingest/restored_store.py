"""Accept a store that was restored from a backup while the lake was not: for a person to decide.

The lake keeps what it was told after the backup; the store lost it. The cursor goes back to where the two part, in a
batch of its own that holds nothing else, so that the next ingest reads every row that came since the restore, once, and
none that was dealt with before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from sqlalchemy import Table, func, select

from feedback.index.ingest_index import IngestIndex
from feedback.index.update import IndexUpdate
from feedback.ingest.run import commit, locked
from feedback.lake.lake import Lake, Manifest
from feedback.sources.landing import rejects_after, source_rejects
from feedback.sources.watermark import fingerprint, store_mismatch, with_fingerprints
from feedback.store.store import Store, feedback, feedback_ready
from infra.database.schema import create_tables
from infra.errors import UserError
from infra.settings import Config

_LOT = 2_000
Row = tuple[int, tuple[str, str] | None]
"""(number, name that the lake would know it by)"""


class AcceptedStore(Config):
    """Where reading goes on."""

    batch: int
    """The batch that says so."""
    cursor_before: int
    """Number up to which the lake had dealt with feedback of the store that is lost."""
    cursor: int
    """Number up to which it has dealt with feedback of this one."""
    waiting: int
    """Feedback that the next ingest reads."""


def accept_store(store: Store, lake: Lake) -> AcceptedStore:
    """Have ingests go on with the store as it is now. Waits while one works.

    Raises:
        UserError: store and lake belong together; there is nothing to accept.
        CorruptArtifact: lake and index do not belong together.
    """
    create_tables(store.database)
    with locked(lake):
        lake.claim_storage()
        with closing(IngestIndex(lake.index_path)) as index:
            staged = lake.staged()
            last = staged[0] if staged is not None else lake.last()
            if last is None or store_mismatch(store, last) is None:
                raise UserError("the database and the lake belong together: nothing is to be accepted, run the ingest")
            if staged is not None:
                last = commit(lake, index, *staged)
            index.expect(last.batch, lake.index_path)
            manifest = _rewound(store, lake, last)
            nothing = IndexUpdate()
            commit(lake, index, lake.stage(manifest, (), (), (), nothing), nothing)
    waiting = store.ready_count(manifest.cursor)
    return AcceptedStore(batch=manifest.batch, cursor_before=last.cursor, cursor=manifest.cursor, waiting=waiting)


def _rewound(store: Store, lake: Lake, last: Manifest) -> Manifest:
    """The batch after `last` that holds nothing and has the cursors where store and lake part."""

    def turns(cursor: int) -> Sequence[Row]:
        again = feedback_ready.alias()
        first = select(func.min(again.c.seq)).where(again.c.feedback_seq == feedback_ready.c.feedback_seq)
        query = (
            select(feedback_ready.c.seq, feedback.c.tenant, feedback.c.event_id, first.scalar_subquery())
            .join(feedback, feedback.c.seq == feedback_ready.c.feedback_seq)
            .where(feedback_ready.c.seq > cursor)
            .order_by(feedback_ready.c.seq)
            .limit(_LOT)
        )
        with store.database.connect() as connection:
            # A later turn of an event may be from after the restore, whatever the lake knows of the event.
            return [(r[0], (r[1], r[2]) if r[0] == r[3] else None) for r in connection.execute(query)]

    def rejects(cursor: int) -> Sequence[Row]:
        return [(row.seq, (row.tenant, row.row_id)) for row in rejects_after(store.database, cursor, _LOT)]

    ready = _parting(store, lake, last, feedback_ready, ("fates", "event_id"), turns)
    rejected = _parting(store, lake, last, source_rejects, ("quarantine", "row_id"), rejects)
    counts = {"store accepted": {"cursor before": last.cursor, "cursor": ready}}
    return with_fingerprints(
        store, Manifest(batch=last.batch + 1, cursor=ready, rejects_cursor=rejected, data_docs=None, counts=counts)
    )


def _parting(
    store: Store,
    lake: Lake,
    last: Manifest,
    table: Table,
    dealt_by: tuple[str, str],
    rows_after: Callable[[int], Sequence[Row]],
) -> int:
    """The number up to which the table's rows are those that the lake dealt with.

    The latest batch whose own row still stands is a sure beginning; from there on, row by row as long as the lake knows
    them (`dealt_by`: table and column that it does by). It stops at the first one that is new, so it skips none.
    """
    if _proved(store, last, table):
        return _cursor_of(last, table)[0]
    sure = next((m for m in _manifests_before(lake, last) if _proved(store, m, table)), None)
    cursor = _cursor_of(sure, table)[0] if sure is not None else 0
    known = _known_after(lake, *dealt_by, batch=sure.batch if sure is not None else 0)
    while rows := rows_after(cursor):
        for seq, name in rows:
            if name not in known:
                return cursor
            cursor = seq
    return cursor


def _manifests_before(lake: Lake, last: Manifest) -> Iterator[Manifest]:
    return (lake.manifest(number) for number in range(last.batch - 1, 0, -1))


def _proved(store: Store, manifest: Manifest, table: Table) -> bool:
    """Whether the row at the batch's cursor is there and the same: not refuted is not enough here."""
    cursor, mark = _cursor_of(manifest, table)
    return mark is not None and mark == fingerprint(store.database, table, cursor)


def _cursor_of(manifest: Manifest, table: Table) -> tuple[int, str | None]:
    if table is feedback_ready:
        return manifest.cursor, manifest.cursor_mark
    return manifest.rejects_cursor, manifest.rejects_mark


def _known_after(lake: Lake, table: str, column: str, *, batch: int) -> set[tuple[str, str]]:
    import polars as pl

    rows = lake.scan(table)
    if rows is None:
        return set()
    return set(rows.filter(pl.col("batch") > batch).select("tenant", column).collect().iter_rows())
