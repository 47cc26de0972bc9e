"""Every interaction is on disk before its answer ends: many wait for one commit, off the event loop.

While the database is away they go to a spool on the gateway's own disk, and land from there when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from deploy.gateway.spool import Spool
from feedback.events import Interaction
from feedback.store import land_interactions
from infra.database import begin_write

log = logging.getLogger(__name__)
LOT = 500
AGAIN_SECONDS = 1.0
"""How long a database that just failed is not asked again: answers must not queue behind its time-outs."""


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached or written now, not that the data is wrong."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(error, DBAPIError) and bool(error.connection_invalidated)


def _said_of(error: Exception) -> str:
    """An error without what it quotes: a database tells in its first line what is wrong, and then shows the row."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {first}"


class Capture:
    """Stores interactions in lots: those that arrive during one commit share the next."""

    def __init__(self, engine: Engine, spool: Spool) -> None:
        self._engine = engine
        self._spool = spool
        self._waiting: asyncio.Queue[tuple[Interaction, asyncio.Future[None]]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._failed_at = -AGAIN_SECONDS

    def start(self) -> None:
        """Begin to work on the running event loop."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._land())]

    async def stop(self) -> None:
        """Store what waits, then end. What is in the spool stays there for the next start."""
        await self._waiting.join()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @property
    def depth(self) -> int:
        """Interactions that wait for a commit."""
        return self._waiting.qsize()

    @property
    def spooled(self) -> int:
        """Lots that wait in the spool for the database."""
        return self._spool.waiting

    async def keep(self, interaction: Interaction) -> None:
        """Return when the interaction is durable; raises what database and spool raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((interaction, done))
        await asyncio.shield(done)  # whoever asked may leave; the interaction is stored all the same

    async def _run(self) -> None:
        while True:
            lot = [await self._waiting.get()]
            while len(lot) < LOT and not self._waiting.empty():
                lot.append(self._waiting.get_nowait())
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._store, [interaction for interaction, _ in lot])
            except Exception as failure:
                log.error("%d interactions could not be stored: %s", len(lot), _said_of(failure))
                error = failure
            for _, done in lot:
                if not done.done():
                    done.set_exception(error) if error is not None else done.set_result(None)
                self._waiting.task_done()

    def _store(self, lot: list[Interaction]) -> None:
        if time.monotonic() - self._failed_at >= AGAIN_SECONDS:
            try:
                self._commit(lot)
                return
            except Exception as error:
                if not is_away(error):
                    raise
                log.error("the database is away, interactions go to the spool: %s", str(error).splitlines()[0])
                self._failed_at = time.monotonic()
        self._spool.put(lot)

    def _commit(self, lot: list[Interaction]) -> None:
        with begin_write(self._engine) as connection:
            land_interactions(connection, lot)

    async def _land(self) -> None:
        while True:
            try:
                landed = await asyncio.to_thread(self._spool.land, self._commit)
                if landed:
                    log.info("%d interactions landed from the spool", landed)
            except Exception as error:
                if not is_away(error):
                    log.error("interactions cannot be landed from the spool; they stay there: %s", _said_of(error))
            await asyncio.sleep(AGAIN_SECONDS)
