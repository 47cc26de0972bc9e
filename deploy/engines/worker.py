"""Run the model on the one thread that owns it: it steps the running batch and does everything else between steps.

All other methods belong to the event loop's thread, so counts and references need no locks.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from infra.errors import Unavailable
from training.generation.generator import Batch, Completion, Generator, Request, Step

log = logging.getLogger(__name__)
T = TypeVar("T")


class Busy(Exception):
    """Too many requests are running and waiting; the client should come again later."""


class Worker:
    """Requests in, steps out.

    Args:
        capacity: most requests that may run and wait together.
    """

    def __init__(self, generator: Generator, *, max_batch: int, capacity: int) -> None:
        self.generator = generator
        self.references: Counter[str | None] = Counter()
        self.draining = False
        self._max_batch = max_batch
        self._capacity = capacity
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._batch = self._new_batch()
        self._answers: dict[str, asyncio.Queue[Step | Exception]] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.last_step = time.monotonic()

    def start(self) -> None:
        """Begin to work; call it on the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self, *, grace_seconds: float = 30.0) -> None:
        """Take no new requests, let the running ones end, then end the thread."""
        self.draining = True
        deadline = time.monotonic() + grace_seconds
        while self._answers and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, 5.0)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def size(self) -> int:
        """Requests running and waiting."""
        return len(self._answers)

    async def answer(self, request: Request) -> AsyncGenerator[Step]:
        """Yield the steps of one request up to the one with its completion; closing the iterator cancels the request.

        Raises:
            Busy: no room. UserError: the request cannot be answered; the message is fit for the client.
        """
        if self.draining:
            raise Unavailable("the engine is shutting down; send the request again")
        if len(self._answers) >= self._capacity:
            raise Busy
        steps: asyncio.Queue[Step | Exception] = asyncio.Queue()
        self._answers[request.request_id] = steps
        finished = False
        with self.keep_loaded(request.adapter):
            try:
                self._commands.put(lambda: self._add(request))
                while not finished:
                    step = await steps.get()
                    if isinstance(step, Exception):
                        finished = True
                        raise step
                    finished = step.completion is not None
                    yield step
            finally:
                if not finished:
                    # Nobody waits any more; the row is free before the next step.
                    self._commands.put(lambda: self._cancel(request.request_id))
                del self._answers[request.request_id]

    async def complete(self, request: Request) -> Completion:
        """Return the whole answer to one request; errors as for `answer`."""
        completion: Completion | None = None
        async for step in self.answer(request):
            completion = step.completion or completion
        assert completion is not None
        return completion

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the worker's thread, between two steps."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._commands.put(run)
        return await asyncio.wrap_future(future)

    async def unused(self, name: str, seconds: float) -> bool:
        """Wait until no request goes through `name`; False when that takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while self.references[name] > 0:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue
        return True

    @contextmanager
    def keep_loaded(self, name: str | None) -> Iterator[None]:
        """Keep an adapter or model loaded for the length of the block."""
        self.references[name] += 1
        try:
            yield
        finally:
            self.references[name] -= 1
            self._changed.set()

    def forget(self, name: str) -> None:
        """Detach an adapter or model; on the worker's thread, with no request going through it."""
        self._batch.forget(name)
        self.generator.detach(name)

    # --- the worker's thread ---

    def _run(self) -> None:
        while True:
            try:
                command = self._commands.get(block=len(self._batch) == 0)
                while True:
                    if command is None:
                        return
                    command()
                    command = self._commands.get_nowait()
            except queue.Empty:
                pass
            if len(self._batch) == 0:
                continue
            try:
                steps = self._batch.step()
            except Exception as error:
                # One broken pass must not end the engine: its requests fail, the next ones get a fresh batch.
                log.exception("a step failed; its requests get an error")
                self._batch = self._new_batch()
                self._publish_error(Unavailable(f"the engine failed in the middle of an answer: {error}"))
                continue
            self.last_step = time.monotonic()
            if steps:
                self._on_loop(lambda steps=steps: self._hand_out(steps))  # type: ignore[misc]

    def _new_batch(self) -> Batch:
        return self.generator.batch(max_size=self._max_batch)

    def _add(self, request: Request) -> None:
        try:
            self._batch.add(request)
        except Exception as error:
            refused = error
            self._on_loop(lambda: self._give(request.request_id, refused))

    def _cancel(self, request_id: str) -> None:
        self._batch.cancel(request_id)

    def _publish_error(self, error: Exception) -> None:
        self._on_loop(lambda: self._give_all(error))

    def _on_loop(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            log.warning("the event loop is closed; an answer had nobody to go to")

    # --- the event loop's thread ---

    def _hand_out(self, steps: list[Step]) -> None:
        for step in steps:
            self._give(step.request_id, step)

    def _give_all(self, error: Exception) -> None:
        for name in list(self._answers):
            self._give(name, error)

    def _give(self, request_id: str, item: Step | Exception) -> None:
        if (steps := self._answers.get(request_id)) is not None:
            steps.put_nowait(item)
