"""How much each account said within the hours that a batch looks back on, kept from one batch to the next.

Adding a week up anew for every batch is what a large ingest would spend most of its look at the past on: the window
moves on by a little each time, so what left it is taken away and what came is added. Only whole numbers are kept so:
what is added up in another order would be another sum of fractions.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_HOURS = "SELECT actor, sum(events) FROM activity WHERE tenant = ? AND hour BETWEEN ? AND ? GROUP BY actor"


@dataclass
class _Kept:
    since: int
    through: int
    """First and last hour (counted from 1970) of what is added up."""
    counts: Counter[str] = field(default_factory=Counter)


class ActivityWindow:
    """Events per untrusted actor, by tenant, of the table `activity` of an open index."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._kept: dict[str, _Kept] = {}

    def counts(self, tenant: str, since: int, through: int) -> dict[str, int]:
        """Events per actor from one hour to another, both included."""
        kept = self._kept.get(tenant)
        if kept is None or since < kept.since or through < kept.through or since > kept.through:
            kept = self._kept[tenant] = _Kept(since, through, self._of(tenant, since, through))
            return dict(kept.counts)
        if since > kept.since:
            kept.counts -= self._of(tenant, kept.since, since - 1)  # drops who has nothing left
        if through > kept.through:
            kept.counts += self._of(tenant, kept.through + 1, through)
        kept.since, kept.through = since, through
        return dict(kept.counts)

    def learn(self, activity: Iterable[tuple[str, str, int, int]]) -> None:
        """Add (tenant, actor, hour, events) rows that the table was taught."""
        for tenant, actor, hour, events in activity:
            kept = self._kept.get(tenant)
            if kept is not None and kept.since <= hour <= kept.through:
                kept.counts[actor] += events

    def clear(self) -> None:
        """Forget it all: rows were taken away from the table."""
        self._kept.clear()

    def _of(self, tenant: str, since: int, through: int) -> Counter[str]:
        return Counter(
            {str(actor): int(events) for actor, events in self._db.execute(_HOURS, (tenant, since, through))}
        )
