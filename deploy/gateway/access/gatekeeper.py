"""Authenticate and authorise requests by API key, and limit their rate."""

from __future__ import annotations

import time
from collections import OrderedDict

from sqlalchemy import Engine

from deploy.api_keys import ApiKey, Scope, verify
from deploy.engines.protocol import ApiError
from deploy.gateway.access.key_cache import KeyCache
from deploy.gateway.database.query_executor import QueryExecutor
from infra.database.errors import is_away

REMEMBER_SECONDS = 2.0
"""How long a verified key is believed: a revoked one stops working within this time."""


class Gatekeeper:
    """Verifies keys against the database, remembers them for a moment, and counts their requests.

    Args:
        offline_seconds: how long a key verified before is believed while the database cannot be asked.
        queries: the way to the database.
        book: keys as the database last had them, for those that this process has not verified itself.
    """

    def __init__(
        self,
        database: Engine,
        *,
        requests_per_minute: float,
        offline_seconds: float = 600.0,
        queries: QueryExecutor | None = None,
        book: KeyCache | None = None,
    ) -> None:
        self._database = database
        self._queries = queries or QueryExecutor()
        self._book = book
        self._offline_seconds = offline_seconds
        self._rate = requests_per_minute / 60.0
        self._burst = max(1.0, requests_per_minute / 6.0)
        self._known: OrderedDict[str, tuple[ApiKey | None, float]] = OrderedDict()
        self._buckets: dict[str, tuple[float, float]] = {}

    async def admit(self, authorization: str | None, scope: Scope) -> ApiKey:
        """Authenticate a request, and return its key.

        Raises:
            ApiError: 401 for a wrong key, 403 for a missing scope, 429 when it asks too often.
        """
        kind, _, secret = (authorization or "").partition(" ")
        key = await self._verify(secret.strip()) if kind.lower() == "bearer" and secret.strip() else None
        if key is None:
            message = "no valid API key; send `Authorization: Bearer <key>`, made with `ratchet keys create`"
            raise ApiError(401, message, kind="authentication_error", code="invalid_api_key")
        if not key.may(scope):
            have = ", ".join(sorted(key.scopes))
            message = f"this key has the scopes {have}; this request needs {scope!r}"
            raise ApiError(403, message, kind="permission_error", code="missing_scope")
        self._count(key.key_id)
        return key

    async def _verify(self, secret: str) -> ApiKey | None:
        at = time.monotonic()
        found = self._known.get(secret)
        if found is not None and at - found[1] < REMEMBER_SECONDS:
            return found[0]
        try:
            key = await self._queries.run(verify, self._database, secret)
        except Exception as error:
            believed = self._believed(secret, at) if is_away(error) else None
            if believed is None:
                raise
            return believed
        self._known[secret] = (key, at)
        self._known.move_to_end(secret)
        while len(self._known) > 10_000:
            self._known.popitem(last=False)
        return key

    def _believed(self, secret: str, at: float) -> ApiKey | None:
        """Chat goes on while the database is away; a key that nobody ever saw cannot be believed."""
        listed = self._book.find(secret) if self._book is not None else None
        if listed is not None:
            return listed
        key, seen = self._known.get(secret, (None, float("-inf")))
        # One that the list does not have any more was revoked, unless it is newer than the list.
        newer = self._book is None or seen >= self._book.read_at
        return key if newer and at - seen < self._offline_seconds else None

    def _count(self, key_id: str) -> None:
        at = time.monotonic()
        tokens, last = self._buckets.get(key_id, (self._burst, at))
        tokens = min(self._burst, tokens + (at - last) * self._rate)
        if tokens < 1.0:
            wait = max(1, round((1.0 - tokens) / self._rate + 0.5))
            raise ApiError(
                429,
                f"this key may send {self._rate * 60:.0f} requests a minute; wait {wait} s",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(wait)},
            )
        self._buckets[key_id] = (tokens - 1.0, at)
