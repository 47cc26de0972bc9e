"""Commit interactions in batches off the event loop, so that each is durable before its answer ends.

While the database is away, or slow beyond what an answer may wait, they go to a spool on the gateway's own disk, and
land from there when it is back. A commit that was given up may still succeed: interactions are unique by id, so what it
wrote and what lands later are one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import Engine

from deploy.gateway.capture.spool import Spool
from deploy.gateway.database.background import Background
from deploy.gateway.database.query_executor import QueryExecutor
from feedback.events import Interaction
from feedback.store.store import land_interactions
from infra.database.connect import begin_write
from infra.database.errors import in_short, is_away, is_rows_own
from infra.errors import Unavailable

log = logging.getLogger(__name__)
LOT = 500
AGAIN_SECONDS = 1.0
"""How often a database that failed is tried again, by what waits in the spool and by nobody's answer."""
KEEP_SECONDS = 5.0

Refused = list[tuple[Interaction, Exception]]


class CaptureQueue:
    """Stores interactions in lots: those that arrive during one commit share the next.

    Args:
        seconds: how long a commit may take before its lot goes to the spool.
        queries: knows whether the database is away; then nothing is tried that would only wait.
    """

    def __init__(
        self, database: Engine, spool: Spool, *, seconds: float = KEEP_SECONDS, queries: QueryExecutor | None = None
    ) -> None:
        self._database = database
        self._spool = spool
        self._seconds = seconds
        self._queries = queries or QueryExecutor()
        self._waiting: asyncio.Queue[tuple[Interaction, asyncio.Future[None]]] = asyncio.Queue()
        self._background = Background()
        # Threads of their own, one for each thing that may hang: an answer must never wait for a thread.
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._landing = ThreadPoolExecutor(1, thread_name_prefix="land")
        self._spooling = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._late: asyncio.Future[Refused] | None = None
        self._failing: str | None = None

    def start(self) -> None:
        """Begin to work on the running event loop."""
        self._background.start("storing interactions", self._run())
        self._background.start("landing the spool", self._land())

    async def stop(self) -> None:
        """Store what waits, then end. What is in the spool stays there for the next start."""
        with suppress(Unavailable):
            self._alive()
            await self._waiting.join()
        await self._background.stop()
        for pool in (self._committing, self._landing, self._spooling):
            pool.shutdown(wait=False)

    @property
    def depth(self) -> int:
        """Interactions that wait for a commit."""
        return self._waiting.qsize()

    @property
    def spooled(self) -> int:
        """Lots that wait in the spool for the database."""
        return self._spool.waiting

    @property
    def has_room(self) -> bool:
        """Whether the spool could keep an interaction now."""
        return self._spool.has_room

    @property
    def away(self) -> str | None:
        """Why interactions go to the spool now; None: they go to the database."""
        if self._late is not None and not self._late.done():
            return f"a commit has taken more than {self._seconds:g} s"
        return self._failing or self._queries.away

    @property
    def ended(self) -> dict[str, str]:
        """Tasks that ended without being asked to: nothing is stored any more."""
        return self._background.ended

    async def keep(self, interaction: Interaction) -> None:
        """Return when the interaction is durable; raises what database and spool raised."""
        self._alive()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((interaction, done))
        await asyncio.shield(done)  # whoever asked may leave; the interaction is stored all the same

    def _alive(self) -> None:
        if self._background.ended:
            raise Unavailable("this gateway does not store interactions any more; start it again")

    async def _run(self) -> None:
        lot: list[tuple[Interaction, asyncio.Future[None]]] = []
        try:
            while True:
                lot = [await self._waiting.get()]
                while len(lot) < LOT and not self._waiting.empty():
                    lot.append(self._waiting.get_nowait())
                failed: dict[int, Exception] = {}
                try:
                    for interaction, why in await self._store([interaction for interaction, _ in lot]):
                        log.error("an interaction is refused by the database: %s", in_short(why))
                        failed[id(interaction)] = why
                except Exception as error:
                    log.error("%d interactions could not be stored: %s", len(lot), in_short(error))
                    failed = {id(interaction): error for interaction, _ in lot}
                for interaction, done in lot:
                    _answer(done, failed.get(id(interaction)))
                    self._waiting.task_done()
                lot = []
        finally:
            # Ended, by whatever it is: nobody may wait for ever.
            while not self._waiting.empty():
                lot.append(self._waiting.get_nowait())
            for _, done in lot:
                _answer(done, Unavailable("this gateway has stopped storing interactions"))
                self._waiting.task_done()

    async def _store(self, lot: list[Interaction]) -> Refused:
        """Keep a lot in the database or the spool; returns what the database refused one by one."""
        running = asyncio.get_running_loop()
        if self.away is None:
            commit = running.run_in_executor(self._committing, self._commit, lot)
            done, _ = await asyncio.wait({commit}, timeout=self._seconds)
            if done:
                try:
                    return commit.result()
                except Exception as error:
                    if not is_away(error):
                        raise
                    self._fail(in_short(error))
            else:
                self._late = commit
                commit.add_done_callback(_say_late)
                self._fail(f"a commit has taken {self._seconds:g} s")
        await running.run_in_executor(self._spooling, self._spool.put, lot)
        return []

    def _fail(self, why: str) -> None:
        if self._failing is None:
            log.error("the database is away, interactions go to the spool: %s", why)
        self._failing = why

    def _commit(self, lot: Sequence[Interaction]) -> Refused:
        """Store a lot; where a row is at fault, the others without it.

        Raises:
            Exception: the database is away, or no row could be stored in it.
        """
        try:
            self._commit_whole(lot)
            return []
        except Exception as error:
            if not is_rows_own(error):
                raise
            if len(lot) == 1:
                return [(lot[0], error)]
        refused: Refused = []
        for interaction in lot:
            try:
                self._commit_whole([interaction])
            except Exception as error:
                if not is_rows_own(error):
                    raise
                refused.append((interaction, error))
        return refused

    def _commit_whole(self, lot: Sequence[Interaction]) -> None:
        with begin_write(self._database) as connection:
            land_interactions(connection, lot)

    async def _land(self) -> None:
        told: str | None = None
        while True:
            # While a commit that was given up is still out, there is nothing to be learnt from another one.
            if (self._late is None or self._late.done()) and self._queries.away is None:
                try:
                    landed = await asyncio.get_running_loop().run_in_executor(self._landing, self._land_once)
                    self._failing = told = None
                    if landed:
                        log.info("%d interactions landed from the spool", landed)
                except Exception as error:
                    said = in_short(error)
                    if is_away(error):
                        self._failing = said if self._failing is not None else None
                    else:
                        self._failing = None  # it answers, and what it says concerns whoever asks next
                        if said != told:
                            log.error("interactions could not be landed from the spool and stay there: %s", said)
                        told = said
            await asyncio.sleep(AGAIN_SECONDS)

    def _land_once(self) -> int:
        """Land what waits. With nothing there, a commit of nothing tells whether one would go through."""
        if self._spool.waiting:
            return self._spool.land(lambda lot: [interaction for interaction, _ in self._commit(lot)])
        if self._failing is not None:
            self._commit_whole([])
        return 0


def _answer(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)


def _say_late(commit: asyncio.Future[Refused]) -> None:
    error = None if commit.cancelled() else commit.exception()
    log.warning("a commit that was given up has ended: %s", in_short(error) if error is not None else "it was stored")
