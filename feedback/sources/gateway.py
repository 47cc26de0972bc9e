"""The gateway's store. Where the gateway writes to this pipeline's own database there is nothing to bring over; a
gateway with a database of its own is followed by its sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydantic import Field, JsonValue

from feedback.sources.landing import Lot
from feedback.store import Store
from infra.database import connect
from infra.schema import check
from infra.settings import Config


class Options(Config):
    """Options of a gateway source."""

    database_url: str | None = None
    """SQLAlchemy URL of a gateway's own database; None: it shares this pipeline's."""
    lot: int = Field(default=1_000, ge=1)
    """Events in one transaction."""


def read(options: Options, mark: JsonValue | None) -> Iterator[Lot]:
    """What is new in that database, interactions first so that feedback need not wait.

    What waits there for an interaction that was never captured comes over too, and waits here: this pipeline gives up
    on it in its own time.

    Raises:
        SchemaMismatch: its tables are of another release.
    """
    if options.database_url is None:
        return
    engine = connect(options.database_url)
    check(engine)
    store = Store(engine)
    cursors = {"interactions": 0, "feedback": 0, "waiting": 0} | cast(
        dict[str, int], mark if isinstance(mark, dict) else {}
    )
    while True:
        interactions = store.interactions_after(cursors["interactions"], options.lot)
        full = len(interactions) == options.lot
        feedback = [] if full else store.feedback_after(cursors["feedback"], options.lot)
        waiting = [] if full else store.waiting_after(cursors["waiting"], options.lot)
        if not interactions and not feedback and not waiting:
            return
        cursors = {
            "interactions": interactions[-1][0] if interactions else cursors["interactions"],
            "feedback": feedback[-1].seq if feedback else cursors["feedback"],
            "waiting": waiting[-1][0] if waiting else cursors["waiting"],
        }
        yield Lot(
            mark=cast(JsonValue, dict(cursors)),
            interactions=[interaction for _, interaction in interactions],
            feedback=[*(ready.feedback for ready in feedback), *(event for _, event in waiting)],
        )
