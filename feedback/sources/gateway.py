"""Read a gateway's own database, followed by its sequences.

Where the gateway writes to this pipeline's own database there is nothing to bring over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import Field, JsonValue
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from feedback.sources.landing import Lot
from feedback.sources.watermark import fingerprint, watermark_mismatch
from feedback.store.store import Store, feedback, feedback_ready, interactions
from infra.database.connect import connect
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.database.schema import check, create_tables
from infra.errors import Unavailable, UserError
from infra.settings import Config

log = logging.getLogger(__name__)

_TABLES = {"interactions": interactions, "feedback": feedback_ready, "waiting": feedback}
"""Cursor -> the table whose numbers it counts."""
_ROWS = "rows"


class Options(Config):
    """Options of a gateway source."""

    database_url: str | None = None
    """SQLAlchemy URL of a gateway's own database; None: it shares this pipeline's."""
    lot: int = Field(default=1_000, ge=1)
    """Events in one transaction."""


def read(options: Options, watermark: JsonValue | None) -> Iterator[Lot]:
    """Read what is new in that database, interactions first so that feedback need not wait.

    What waits there for an interaction that was never captured comes over too, and waits here: this pipeline gives up
    on it in its own time. A database that was restored from a backup is read from its beginning again: what is here
    already is known by its ids.

    Raises:
        SchemaMismatch: its tables are of another release.
    """
    if options.database_url is None:
        return
    database = connect(options.database_url)
    check(database)
    store = Store(database)
    cursors = _cursors(store.database, watermark if isinstance(watermark, dict) else {})
    while True:
        answers = store.interactions_after(cursors["interactions"], options.lot)
        full = len(answers) == options.lot
        events = [] if full else store.feedback_after(cursors["feedback"], options.lot)
        waiting = [] if full else store.waiting_after(cursors["waiting"], options.lot)
        if not answers and not events and not waiting:
            return
        cursors = {
            "interactions": answers[-1][0] if answers else cursors["interactions"],
            "feedback": events[-1].seq if events else cursors["feedback"],
            "waiting": waiting[-1][0] if waiting else cursors["waiting"],
        }
        rows = {name: fingerprint(store.database, table, cursors[name]) for name, table in _TABLES.items()}
        yield Lot(
            watermark=cast("JsonValue", {**cursors, _ROWS: rows}),
            interactions=[interaction for _, interaction in answers],
            feedback=[*(ready.feedback for ready in events), *(event for _, event in waiting)],
        )


def own_store(options: Options, name: str) -> Store | None:
    """Open the database that the gateway of the source `name` has for itself; None where it shares this pipeline's.

    Raises:
        UserError: its tables are of another release.
        Unavailable: it does not answer.
    """
    if options.database_url is None:
        return None
    try:
        database = connect(options.database_url)
        create_tables(database)
    except SQLAlchemyError as error:
        holds = f"the database of source {name} holds what its gateway was asked"
        if is_of_other_tables(error):
            raise UserError(f"{holds}: {OTHER_TABLES} ({in_short(error)}); nothing was removed") from error
        if not is_away(error):
            raise
        raise Unavailable(
            f"{holds} and does not answer ({in_short(error)}); nothing was removed: forget again when it does"
        ) from error
    return Store(database)


def _cursors(database: Engine, watermark: Mapping[str, JsonValue]) -> dict[str, int]:
    """Where to go on: after the watermark, or from the beginning where the database is not the one it was taken of."""
    cursors = {name: cast("int", watermark.get(name, 0)) for name in _TABLES}
    rows = cast("Mapping[str, str | None]", watermark.get(_ROWS) or {})
    mismatches = (watermark_mismatch(database, table, cursors[name], rows.get(name)) for name, table in _TABLES.items())
    why = next((text for text in mismatches if text is not None), None)
    if why is None:
        return cursors
    log.warning(
        "the gateway's database at %s was restored from a backup, or is another one: %s; it is read from its beginning",
        database.url.render_as_string(hide_password=True),
        why,
    )
    return dict.fromkeys(_TABLES, 0)
