"""Every interaction is on disk before its answer ends: many wait for one commit, off the event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from sqlalchemy import Engine

from feedback.events import Interaction
from feedback.store import land_interactions
from infra.database import begin_write

log = logging.getLogger(__name__)
LOT = 500


class Capture:
    """Stores interactions in lots: those that arrive during one commit share the next."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: asyncio.Queue[tuple[Interaction, asyncio.Future[None]]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work on the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Store what waits, then end."""
        await self._waiting.join()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def depth(self) -> int:
        """Interactions that wait for a commit."""
        return self._waiting.qsize()

    async def keep(self, interaction: Interaction) -> None:
        """Return when the interaction is durable; raises what the database raised."""
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
                await asyncio.to_thread(self._commit, [interaction for interaction, _ in lot])
            except Exception as failure:
                log.exception("%d interactions could not be stored", len(lot))
                error = failure
            for _, done in lot:
                if not done.done():
                    done.set_exception(error) if error is not None else done.set_result(None)
                self._waiting.task_done()

    def _commit(self, lot: list[Interaction]) -> None:
        with begin_write(self._engine) as connection:
            land_interactions(connection, lot)
