"""The gateway's store. Where the gateway writes to this pipeline's own database there is nothing to bring over; a
gateway with a database of its own is followed by its sequences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pydantic import Field, JsonValue

from feedback.sources.landing import Lot
from feedback.store import Store
from infra.database import connect
from infra.settings import Config


class Options(Config):
    """Options of a gateway source."""

    database_url: str | None = None
    """SQLAlchemy URL of a gateway's own database; None: it shares this pipeline's."""
    lot: int = Field(default=1_000, ge=1)
    """Events in one transaction."""


def read(options: Options, mark: JsonValue | None) -> Iterator[Lot]:
    """What is new in that database, interactions first so that feedback need not wait."""
    if options.database_url is None:
        return
    store = Store(connect(options.database_url))
    cursors = cast(dict[str, int], mark) if isinstance(mark, dict) else {"interactions": 0, "feedback": 0}
    while True:
        interactions = store.interactions_after(cursors["interactions"], options.lot)
        feedback = [] if len(interactions) == options.lot else store.feedback_after(cursors["feedback"], options.lot)
        if not interactions and not feedback:
            return
        cursors = {
            "interactions": interactions[-1][0] if interactions else cursors["interactions"],
            "feedback": feedback[-1].seq if feedback else cursors["feedback"],
        }
        yield Lot(
            mark=cast(JsonValue, dict(cursors)),
            interactions=[interaction for _, interaction in interactions],
            feedback=[ready.feedback for ready in feedback],
        )
