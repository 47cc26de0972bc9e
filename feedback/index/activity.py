"""Count how much each untrusted account gave within a sliding window of hours, kept from one batch to the next.

Adding a week up anew for every batch is what a large ingest would spend most of its look at the index on: the window
moves on by a little each time, so what left it is taken away and what came is added. Only whole numbers are kept so:
what is added up in another order would be another sum of fractions.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from feedback.index.update import ActorActivity

SCHEMA = """
CREATE TABLE IF NOT EXISTS activity (
    tenant TEXT NOT NULL, actor TEXT NOT NULL, hour INTEGER NOT NULL, events INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour, actor)) WITHOUT ROWID;
"""
_HOURS = "SELECT actor, sum(events) FROM activity WHERE tenant = ? AND hour BETWEEN ? AND ? GROUP BY actor"


@dataclass
class _Window:
    since: int
    through: int
    """First and last hour (counted from 1970) of what is added up."""
    counts: Counter[str] = field(default_factory=Counter)


class ActivityWindow:
    """Count events per untrusted actor, by tenant."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._windows: dict[str, _Window] = {}

    def counts(self, tenant: str, since: int, through: int) -> dict[str, int]:
        """Return the events per actor from one hour (counted from 1970) to another, both included."""
        window = self._windows.get(tenant)
        if window is None or since < window.since or through < window.through or since > window.through:
            window = self._windows[tenant] = _Window(since, through, self._sum(tenant, since, through))
            return dict(window.counts)
        if since > window.since:
            window.counts -= self._sum(tenant, window.since, since - 1)  # drops who has nothing left
        if through > window.through:
            window.counts += self._sum(tenant, window.through + 1, through)
        window.since, window.through = since, through
        return dict(window.counts)

    def learn(self, activity: Iterable[ActorActivity]) -> None:
        """Write what a batch adds, inside the caller's transaction; `move` the windows once it is committed."""
        self._db.executemany(
            "INSERT INTO activity VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
            activity,
        )

    def move(self, activity: Iterable[ActorActivity]) -> None:
        """Add what was written to the windows that hold its hours."""
        for tenant, actor, hour, events in activity:
            window = self._windows.get(tenant)
            if window is not None and window.since <= hour <= window.through:
                window.counts[actor] += events

    def forget(self, tenant: str, actor: str) -> int:
        """Delete an actor's rows, and every window. Returns rows deleted."""
        self._windows.clear()
        return self._db.execute("DELETE FROM activity WHERE tenant = ? AND actor = ?", (tenant, actor)).rowcount

    def _sum(self, tenant: str, since: int, through: int) -> Counter[str]:
        return Counter(
            {str(actor): int(events) for actor, events in self._db.execute(_HOURS, (tenant, since, through))}
        )
