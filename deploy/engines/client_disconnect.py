"""Cancel work for a client that disconnects: nobody pays for an answer that nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from deploy.engines.protocol import ApiError

T = TypeVar("T")
LOOK_SECONDS = 0.2


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; if the client leaves before, it is cancelled.

    Raises:
        ApiError: 499, the client left (nobody sees it but the log).
    """
    task = asyncio.create_task(work)

    async def leave() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(LOOK_SECONDS)

    leaving = asyncio.create_task(leave())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client left", kind="client_closed")
        return task.result()
    finally:
        leaving.cancel()
        task.cancel()


async def first_or_disconnect(request: Request, steps: AsyncGenerator[T]) -> T:
    """Return the first item of `steps`, awaited before a stream begins; if the client leaves, `steps` is cancelled.

    A stream notices a client that leaves by itself, but only once it has begun: until then the request may wait long in
    a queue for somebody who is not there.

    Raises:
        ApiError: 499, the client left (nobody sees it but the log).
    """

    async def first() -> T:
        return await anext(steps)

    return await cancel_on_disconnect(request, first())
