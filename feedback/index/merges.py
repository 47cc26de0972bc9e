"""Log which event was merged into whose example (merge log), so that it can be requeued when that example goes.

A duplicate is not kept twice, so whoever takes the one copy away takes what others said too. A batch that speaks of a
subject anew may do that: what was merged into an example that it does not make again is lost, and the ingest gives it
another turn once nothing else waits (`lost`, `mark_requeued`). It stays listed until a batch has dealt with it, so that
a kill between the two databases neither forgets it nor gives it two turns, and `waiting_again` tells the judges that it
is nothing new. What was merged before an index had these tables is not known here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from feedback.index.update import IndexUpdate, Merge

SCHEMA = """
CREATE TABLE IF NOT EXISTS merged (
    tenant TEXT NOT NULL, owner TEXT NOT NULL, example_id TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS merged_owner ON merged (tenant, owner);
CREATE INDEX IF NOT EXISTS merged_subject ON merged (tenant, subject);
CREATE TABLE IF NOT EXISTS lost (
    tenant TEXT NOT NULL, subject TEXT NOT NULL, event_id TEXT NOT NULL, requeued INTEGER NOT NULL,
    UNIQUE (tenant, event_id));
CREATE INDEX IF NOT EXISTS lost_subject ON lost (tenant, subject);
"""
BY_SUBJECT = (("merged", "owner"), ("merged", "subject"), ("lost", "subject"))
"""Tables, and their columns, whose rows go when a subject is spoken of anew or forgotten."""


class MergeLog:
    """What was merged into examples that stand, and what was lost with examples that went."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def merged_into(self, renewed: Iterable[tuple[str, str]]) -> list[Merge]:
        """Return what was merged into examples of these (tenant, subject) pairs, and is of none of them itself."""
        pairs = set(renewed)
        wanted = "SELECT tenant, owner, example_id, subject, event_id FROM merged WHERE tenant = ? AND owner = ?"
        rows = (Merge(*row) for pair in sorted(pairs) for row in self._db.execute(wanted, pair))
        return [row for row in rows if (row.tenant, row.subject) not in pairs]

    def learn(self, earlier: Sequence[Merge], update: IndexUpdate) -> None:
        """Write what a batch merged, inside the caller's transaction.

        Args:
            earlier: what was merged into the subjects that the batch renews. What these make anew keeps it; the rest
                is lost.
        """
        made = {entry.example_id for entry in update.entries}
        kept = [row for row in earlier if row.example_id in made]
        lost = {(row.tenant, row.subject, row.event_id) for row in earlier if row.example_id not in made}
        self._db.executemany("INSERT INTO merged VALUES (?, ?, ?, ?, ?)", [*kept, *update.merged])
        self._db.executemany("INSERT OR REPLACE INTO lost VALUES (?, ?, ?, 0)", sorted(lost))

    def lost(self) -> dict[str, list[str]]:
        """Return the events by tenant that have to be given another turn, in order."""
        events: dict[str, list[str]] = {}
        for tenant, event_id in self._db.execute("SELECT tenant, event_id FROM lost WHERE NOT requeued ORDER BY 1, 2"):
            events.setdefault(str(tenant), []).append(str(event_id))
        return events

    def mark_requeued(self, tenant: str, events: Iterable[str]) -> None:
        """Note that these events were given another turn."""
        self._db.execute("BEGIN IMMEDIATE")
        named = [(tenant, event_id) for event_id in events]
        self._db.executemany("UPDATE lost SET requeued = 1 WHERE tenant = ? AND event_id = ?", named)
        self._db.execute("COMMIT")

    def waiting_again(self, events: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of the (tenant, event) pairs that were taken in before and then lost."""
        if self._db.execute("SELECT 1 FROM lost LIMIT 1").fetchone() is None:
            return set()
        wanted = "SELECT 1 FROM lost WHERE tenant = ? AND event_id = ?"
        return {event for event in events if self._db.execute(wanted, event).fetchone() is not None}
