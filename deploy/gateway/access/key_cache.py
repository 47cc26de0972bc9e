"""Cache all keys' hashes as the database last had them: who may ask while it is away, also after a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from deploy.api_keys import ApiKey, hash_of, keys_by_hash
from deploy.gateway.database.background import Background, repeat_forever
from deploy.gateway.database.query_executor import QueryExecutor

EVERY_SECONDS = 10.0
"""How often the keys are read; one made or revoked within it before an outage is not known of in it."""


class KeyCache:
    """The keys that were valid when the database last answered.

    Args:
        offline_seconds: how long after that they are believed.
        keep: keeps them for a start without a database.
    """

    def __init__(
        self,
        database: Engine,
        queries: QueryExecutor,
        *,
        offline_seconds: float,
        keep: Callable[[Mapping[str, ApiKey]], None] = lambda _: None,
    ) -> None:
        self._database, self._queries, self._keep = database, queries, keep
        self._offline_seconds = offline_seconds
        self._keys: Mapping[str, ApiKey] = {}
        self.read_at = float("-inf")
        """When the keys were read, by our own clock."""
        self._background = Background()

    def start(self, keys: Mapping[str, ApiKey] | None = None, read_at: float = 0.0) -> None:
        """Follow the database's keys; until they were read, those that an earlier process kept count.

        Args:
            read_at: when that process read them, in seconds since 1970.
        """
        if keys:
            self._keys, self.read_at = keys, time.monotonic() - max(0.0, time.time() - read_at)
        work = repeat_forever("reading the keys", self._read, EVERY_SECONDS)
        self._background.start("reading the keys", work)

    async def stop(self) -> None:
        """Stop following."""
        await self._background.stop()

    @property
    def ended(self) -> dict[str, str]:
        """Tasks that ended without being asked to."""
        return self._background.ended

    def find(self, secret: str) -> ApiKey | None:
        """Look up a key that was valid when the database last answered, if that is not too long ago."""
        if time.monotonic() - self.read_at > self._offline_seconds:
            return None
        return self._keys.get(hash_of(secret))

    async def _read(self) -> None:
        if self._queries.away is not None:
            return
        self._keys = await self._queries.run(self._read_and_keep)
        self.read_at = time.monotonic()

    def _read_and_keep(self) -> Mapping[str, ApiKey]:
        keys = keys_by_hash(self._database)
        self._keep(keys)
        return keys
