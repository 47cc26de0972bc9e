"""Open a gateway's database at its start, or whenever it is back where an earlier process kept what it knew."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from sqlalchemy import Engine

from deploy.gateway.database.background import Background
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.offline_cache import OfflineState
from feedback.store.user_salt import verify_salt
from infra.database.errors import in_short, is_away
from infra.database.schema import create_tables

log = logging.getLogger(__name__)
AGAIN_SECONDS = 1.0


class DatabaseOpener:
    """Makes the tables and checks the salt before anything is stored under it."""

    def __init__(self, database: Engine, queries: QueryExecutor, salt: str) -> None:
        self._database, self._queries, self._salt = database, queries, salt
        self._background = Background()

    @property
    def ended(self) -> dict[str, str]:
        """That the database, when it was back, turned out to be none of ours."""
        return self._background.ended

    async def open(self, kept: OfflineState | None) -> bool:
        """Return when the database is open; False, at once, while it is away and `kept` is there to go on with.

        Raises:
            Exception: it is away and nothing was kept. UserError: the salt or the tables are others.
        """
        if kept is None:
            await asyncio.to_thread(self._open)
            return True
        try:
            await self._queries.within(3 * self._queries.seconds, self._open)
            return True
        except Exception as error:
            if not is_away(error):
                raise
            log.error("the database is away, this gateway starts with what it last knew: %s", in_short(error))
            self._queries.mark_failed(in_short(error))
            self._background.start("opening the database", self._open_later())
            return False

    async def stop(self) -> None:
        """Try no more."""
        await self._background.stop()

    async def _open_later(self) -> None:
        while True:
            await asyncio.sleep(AGAIN_SECONDS)
            try:
                await self._queries.within(3 * self._queries.seconds, self._open)
                break
            except Exception as error:
                if not is_away(error):
                    raise  # started again, this gateway says what is wrong, and ends
        log.info("the database is open")
        await asyncio.Event().wait()

    def _open(self) -> None:
        create_tables(self._database)
        verify_salt(self._database, self._salt)


def fingerprint(database: Engine) -> str:
    """Fingerprint which database it is, without any secret."""
    url = database.url.set(password=None).render_as_string(hide_password=False)
    return hashlib.sha256(url.encode()).hexdigest()
