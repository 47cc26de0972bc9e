"""Query the database from an event loop: every query on a thread of a pool of its own, and with a time limit.

A database that is frozen answers nothing and refuses nothing. Whoever asked would wait, and whoever asks next too,
until no thread is left. So there is one who asks all the time (`deploy.gateway.routing.follow_ledger` follows the
ledger); when that one gets no answer, nobody else waits for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from infra.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 16
"""As many as a pool of SQLAlchemy has connections, and one."""
AWAY = "the database does not answer; try again"


class QueryExecutor:
    """Runs queries, and knows whether the database is away.

    Args:
        seconds: how long an answer may take before the database counts as away.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self.seconds = seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        self._asked_at: float | None = None
        self._failing: str | None = None
        self.answered_at = time.monotonic()
        """When it last answered whoever asks all the time, by our own clock."""

    @property
    def away(self) -> str | None:
        """Why nobody should wait for it now; None: it answers."""
        if self._failing is not None:
            return self._failing
        if self._asked_at is not None and time.monotonic() - self._asked_at > self.seconds:
            return f"it has not answered for {self.seconds:g} s"
        return None

    async def run(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            Unavailable: the database is away, or has not answered in time. What was to be written may be written later.
        """
        if self.away is not None:
            raise Unavailable(AWAY)
        return await self.within(self.seconds, work, *args, **named)

    async def within(self, limit: float, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run `work` in `limit` seconds, also while it counts as away."""
        running = self.submit(work, *args, **named)
        done, _ = await asyncio.wait({running}, timeout=limit)
        if not done:
            running.add_done_callback(_forget)
            running.cancel()  # if no thread has begun with it
            raise Unavailable(AWAY)
        return running.result()

    def submit(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> asyncio.Future[T]:
        """Have `work` done on a thread; whoever asks decides how long to wait."""
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **named))

    def mark_asking(self) -> None:
        """Note that whoever asks all the time asks now."""
        self._asked_at = time.monotonic()

    def mark_answered(self) -> None:
        """Note that the database answered."""
        self._asked_at, self._failing, self.answered_at = None, None, time.monotonic()

    def mark_failed(self, why: str) -> None:
        """Note that it said that it is away."""
        self._asked_at, self._failing = None, why

    def close(self) -> None:
        """End without waiting for queries that still run."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(late: asyncio.Future[T]) -> None:
    if not late.cancelled():
        late.exception()  # whoever asked was told that it takes too long
