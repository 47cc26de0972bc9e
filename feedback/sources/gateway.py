"""The gateway's store. Where the gateway writes to this pipeline's own database there is nothing to bring over; a
gateway with a database of its own is followed by its sequences."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import Field, JsonValue
from sqlalchemy import Engine

from feedback.sources.landing import Lot
from feedback.sources.watermark import fingerprint, watermark_mismatch
from feedback.store.store import Store, feedback, feedback_ready, interactions
from infra.database.connect import connect
from infra.database.schema import check
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
    """What is new in that database, interactions first so that feedback need not wait.

    What waits there for an interaction that was never captured comes over too, and waits here: this pipeline gives up
    on it in its own time. A database that was restored from a backup is read from its beginning again: what is here
    already is known by its ids.

    Raises:
        SchemaMismatch: its tables are of another release.
    """
    if options.database_url is None:
        return
    engine = connect(options.database_url)
    check(engine)
    store = Store(engine)
    cursors = _cursors(store.engine, watermark if isinstance(watermark, dict) else {})
    while True:
        answers = store.interactions_after(cursors["interactions"], options.lot)
        full = len(answers) == options.lot
        said = [] if full else store.feedback_after(cursors["feedback"], options.lot)
        waiting = [] if full else store.waiting_after(cursors["waiting"], options.lot)
        if not answers and not said and not waiting:
            return
        cursors = {
            "interactions": answers[-1][0] if answers else cursors["interactions"],
            "feedback": said[-1].seq if said else cursors["feedback"],
            "waiting": waiting[-1][0] if waiting else cursors["waiting"],
        }
        rows = {name: fingerprint(store.engine, table, cursors[name]) for name, table in _TABLES.items()}
        yield Lot(
            watermark=cast("JsonValue", {**cursors, _ROWS: rows}),
            interactions=[interaction for _, interaction in answers],
            feedback=[*(ready.feedback for ready in said), *(event for _, event in waiting)],
        )


def _cursors(engine: Engine, watermark: Mapping[str, JsonValue]) -> dict[str, int]:
    """Where to go on: after the watermark, or from the beginning where the database is not the one it was taken of."""
    cursors = {name: cast("int", watermark.get(name, 0)) for name in _TABLES}
    rows = cast("Mapping[str, str | None]", watermark.get(_ROWS) or {})
    found = (watermark_mismatch(engine, table, cursors[name], rows.get(name)) for name, table in _TABLES.items())
    why = next((text for text in found if text is not None), None)
    if why is None:
        return cursors
    log.warning(
        "the gateway's database at %s was restored from a backup, or is another one: %s; it is read from its beginning",
        engine.url.render_as_string(hide_password=True),
        why,
    )
    return dict.fromkeys(_TABLES, 0)
