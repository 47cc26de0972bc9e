"""Spread requests over the engines behind a gateway: to the least busy one that serves the version, proved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from deploy.engines.answers import ChatAnswer
from deploy.engines.client import AsyncEngineClient, EngineRefusal
from deploy.gateway.backends.adapter_loading import AdapterLoader
from infra.errors import RatchetError, Unavailable

TRIES = 4
"""How often a request may find that an engine has just lost its version, before it is given up."""


class Replica:
    """One engine: its connections, what it was proved to serve, and how many requests it has."""

    def __init__(self, client: AsyncEngineClient, loading: AdapterLoader) -> None:
        self.client, self.loading = client, loading
        self.busy = 0


class ReplicaPool:
    """All replicas. One that is down costs a request nothing while another serves the version."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)
        self.pinned: Callable[[], frozenset[str]] = frozenset

    async def close(self) -> None:
        """Close all connections."""
        for replica in self.replicas:
            await replica.client.close()
            replica.loading.close()

    async def healthy(self) -> bool:
        """Check whether at least one engine is well."""
        return any(await asyncio.gather(*(replica.client.healthy() for replica in self.replicas)))

    async def warm(self, version: str) -> None:
        """Have every engine load and prove a version.

        Raises:
            RatchetError: an engine could not; what the first of them said.
        """
        done = await asyncio.gather(*(self._ensure(r, version) for r in self.replicas), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def ensure(self, version: str) -> None:
        """Return when at least one engine serves a version, proved.

        Raises:
            RatchetError: none does; what the last of them said.
        """
        await self._pick(version, set())

    async def chat(self, name: str, body: Mapping[str, Any], version: str) -> ChatAnswer:
        """Ask for a whole answer by `version`, which the engines call `name`.

        Raises:
            EngineRefusal: an engine refuses the request. RatchetError: none can answer it.
        """
        tried: set[int] = set()
        for tries_left in reversed(range(TRIES)):
            replica = await self._pick(version, tried)
            replica.busy += 1
            try:
                return await replica.client.chat({**body, "model": name})
            except EngineRefusal as refusal:
                if not tries_left or not refusal.model_unknown:
                    raise
                replica.loading.forget(version)
            except Unavailable:
                if not self._another(replica, tried):
                    raise
            finally:
                replica.busy -= 1
        raise AssertionError("unreachable")

    async def stream(self, name: str, body: Mapping[str, Any], version: str) -> AsyncGenerator[str]:
        """Ask for the same as server-sent events, their data; another engine is asked only before the first."""
        tried: set[int] = set()
        for tries_left in reversed(range(TRIES)):
            replica = await self._pick(version, tried)
            begun = False
            replica.busy += 1
            try:
                async with aclosing(replica.client.stream({**body, "model": name})) as events:
                    async for data in events:
                        begun = True
                        yield data
                return
            except EngineRefusal as refusal:
                if begun or not tries_left or not refusal.model_unknown:
                    raise
                replica.loading.forget(version)
            except Unavailable:
                if begun or not self._another(replica, tried):
                    raise
            finally:
                replica.busy -= 1

    async def _pick(self, version: str, tried: set[int]) -> Replica:
        """The least busy engine that serves the version; among equals one that has proved it already."""
        error: RatchetError = Unavailable(f"no engine is left to ask for {version}")
        order = sorted(
            (index for index in range(len(self.replicas)) if index not in tried),
            key=lambda index: (version not in self.replicas[index].loading.proved, self.replicas[index].busy),
        )
        for index in order:
            try:
                await self._ensure(self.replicas[index], version)
                return self.replicas[index]
            except RatchetError as failure:
                error = failure
        raise error

    async def _ensure(self, replica: Replica, version: str) -> None:
        await replica.loading.ensure(version)
        await replica.loading.shed(self.pinned())

    def _another(self, replica: Replica, tried: set[int]) -> bool:
        """Leave out an engine that did not answer; whether another is left to ask."""
        tried.add(self.replicas.index(replica))
        return len(tried) < len(self.replicas)
