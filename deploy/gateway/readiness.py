"""Check whether a gateway can answer and can keep what it answers; a database that is away takes no gateway out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Engine, select

from deploy.api_keys import api_keys
from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.follow_ledger import RoutingTables
from deploy.ledger.lease import leases
from deploy.ledger.ledger import releases
from feedback.store.tables import feedback, feedback_ready, interactions
from infra.database.errors import OTHER_TABLES, is_away, is_of_other_tables
from infra.errors import Unavailable

PROBE_SECONDS = 2.0
"""How long the database may take to say that it is there, whatever its own limits are."""
AWAY = "the database does not answer: answers are kept in the spool and land later, feedback is refused"
_NEEDED = (interactions, feedback, feedback_ready, releases, leases, api_keys)


@dataclass(frozen=True)
class ReadinessReport:
    """What stands in the way of answering, and what only makes it worse. No names: anybody may ask."""

    missing: tuple[str, ...]
    degraded: tuple[str, ...]

    @property
    def status(self) -> str:
        """In one word or two."""
        return "not ready" if self.missing else "degraded" if self.degraded else "ready"


class Readiness:
    """Looks at all parts of a gateway.

    Args:
        lease_seconds: age from which routing is too old, while the database answers.
        answers: says why nobody can be answered now, if so.
        ended: tasks that ended without being asked to.
    """

    def __init__(
        self,
        database: Engine,
        *,
        queries: QueryExecutor,
        capture: CaptureQueue,
        tables: RoutingTables,
        lease_seconds: float,
        answers: Callable[[], Awaitable[str | None]],
        ended: Callable[[], dict[str, str]],
    ) -> None:
        self._database, self._queries = database, queries
        self._capture, self._tables = capture, tables
        self._lease_seconds, self._answers, self._ended = lease_seconds, answers, ended
        self._probing: asyncio.Future[None] | None = None

    async def check(self) -> ReadinessReport:
        """Look at all parts now."""
        missing = [f"{name} has ended; start this gateway again" for name in self._ended()]
        degraded = []
        cannot, trouble = await asyncio.gather(self._answers(), self._probe())
        if cannot is not None:
            missing.append(cannot)
        away = self._capture.away is not None or (trouble is not None and is_away(trouble))
        if trouble is not None and not is_away(trouble):
            missing.append(OTHER_TABLES if is_of_other_tables(trouble) else "the database refuses what is read in it")
        if away and not self._capture.has_room:
            missing.append("the database does not answer and the spool has no room: nothing could be kept")
        elif away:
            degraded.append(AWAY)
        age = self._tables.age_seconds
        if age > self._lease_seconds:
            (degraded if away else missing).append(f"releases were last followed {age:.0f} s ago")
        if self._tables.unread:
            degraded.append(
                "a ledger cannot be followed to its end: its tenant gets the last known champion; see the log"
            )
        return ReadinessReport(tuple(missing), tuple(degraded))

    async def _probe(self) -> BaseException | None:
        """What is wrong with the database; one that does not say it in time is away, and is not asked twice at once."""
        if self._probing is None or self._probing.done():
            self._probing = self._queries.submit(self._read_nothing)
        done, _ = await asyncio.wait({self._probing}, timeout=PROBE_SECONDS)
        return self._probing.exception() if done else Unavailable("it takes too long")

    def _read_nothing(self) -> None:
        """Name every column that is needed, so that one that is missing is found before it is needed."""
        with self._database.connect() as connection:
            for table in _NEEDED:
                connection.execute(select(table).limit(0))
