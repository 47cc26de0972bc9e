"""Run tasks for as long as the gateway does.

One that ends is never silent: it is logged, and the gateway is not well any more (`/healthz`), so that whoever looks
after processes starts another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Background:
    """The lasting tasks of one gateway."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.ended: dict[str, str] = {}
        """Task -> what it ended of, for those that ended without being asked to."""

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`, which is not meant to end."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._note(name, done))
        return task

    async def stop(self) -> None:
        """End all of them."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            while not task.done():  # a wait inside of it may have swallowed the first cancel (asyncio.wait_for does)
                task.cancel()
                await asyncio.wait({task}, timeout=1.0)

    def _note(self, name: str, task: asyncio.Task[None]) -> None:
        if name not in self._tasks:
            return  # it was asked to
        error = None if task.cancelled() else task.exception()
        self.ended[name] = f"{type(error).__name__}: {error}" if error else "it was cancelled or returned"
        log.critical("%s has ended, start this gateway again", name, exc_info=error)


async def repeat_forever(name: str, step: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Run `step` for ever, `seconds` apart, whatever goes wrong in one of them; the same trouble is logged once."""
    last: str | None = None
    while True:
        try:
            await step()
            last = None
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            if trouble != last:
                log.exception("%s failed; tried again in %g s", name, seconds)
            last = trouble
        await asyncio.sleep(seconds)


def log_failure(task: asyncio.Task[Any], name: str) -> None:
    """Log what a task that nobody waits for failed of."""

    def note(done: asyncio.Task[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            log.error("%s failed: %s", name, f"{type(error).__name__}: {error}"[:500])

    task.add_done_callback(note)
