"""Remember which events are held as abuse, so that they stay out when their interaction is looked at again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from feedback.index.update import IndexUpdate

SCHEMA = """
CREATE TABLE IF NOT EXISTS held (
    tenant TEXT NOT NULL, event_id TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (tenant, event_id)) WITHOUT ROWID;
"""


class HeldEvents:
    """Events that are held, each with its reason."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def learn(self, update: IndexUpdate) -> None:
        """Write what a batch held and what a person released, inside the caller's transaction."""
        self._db.executemany("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?)", update.held)
        self._db.executemany("DELETE FROM held WHERE tenant = ? AND event_id = ?", update.released)

    def reasons(self, events: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
        """Return (code, detail) of those of the (tenant, event) pairs that are held."""
        held = {}
        for tenant, event_id in events:
            row = self._db.execute(
                "SELECT code, detail FROM held WHERE tenant = ? AND event_id = ?", (tenant, event_id)
            ).fetchone()
            if row is not None:
                held[(tenant, event_id)] = (str(row[0]), str(row[1]))
        return held

    def forget(self, tenant: str, events: Iterable[str]) -> int:
        """Delete events' rows, inside the caller's transaction. Returns rows deleted."""
        delete = "DELETE FROM held WHERE tenant = ? AND event_id = ?"
        return sum(self._db.execute(delete, (tenant, event_id)).rowcount for event_id in events)
