"""Copy requests to a version in shadow: after the user was answered, a few at a time, never waited for."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import Engine

from deploy.config import GatewayJob
from deploy.experiments.shadow import ShadowAnswer, chosen, record_shadow
from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.chat.exchange import Exchange
from deploy.gateway.chat.serving_backend import engine_name
from deploy.gateway.database.background import log_failure
from deploy.gateway.database.query_executor import QueryExecutor
from infra.database.errors import in_short
from infra.errors import RatchetError

log = logging.getLogger(__name__)


class ShadowRunner:
    """Has the version in shadow answer copies, and keeps its answers."""

    def __init__(
        self, job: GatewayJob, database: Engine, engines: ReplicaPool, queries: QueryExecutor | None = None
    ) -> None:
        self._queries = queries or QueryExecutor()
        self._job, self._database, self._engines = job, database, engines
        self._running: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Copies not made because enough were being answered."""

    def offer(self, exchange: Exchange, body: dict[str, Any]) -> None:
        """Copy an answered request if it is its turn. Returns at once.

        Args:
            body: messages and sampling settings, as an engine takes them.
        """
        version = exchange.table.shadow
        if version is None or version == exchange.assignment.version or exchange.assignment.arm == "pinned":
            return
        if not chosen(exchange.interaction_id, exchange.table.shadow_share):
            return
        if len(self._running) >= self._job.serving.max_shadows:
            self.dropped += 1
            return
        task = asyncio.create_task(self._answer(exchange.caller.key.tenant, exchange.interaction_id, version, body))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        log_failure(task, "an answer in shadow")

    async def stop(self) -> None:
        """Drop what is being answered."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, tenant: str, interaction_id: str, version: str, body: dict[str, Any]) -> None:
        started, text, error = time.monotonic(), "", None
        try:
            await self._engines.ensure(version)
            answer = await self._engines.chat(engine_name(self._job, version), body, version)
            text = answer.text
        except RatchetError as failure:
            error = str(failure)[:1000]
        except Exception as failure:  # an answer in no form that we know; a mistake of ours would be one, too
            log.warning("%s answered a copy as nobody expects: %s", version, type(failure).__name__)
            error = f"{type(failure).__name__}: {failure}"[:1000]
        latency = (time.monotonic() - started) * 1000
        kept = ShadowAnswer(
            tenant=tenant,
            interaction_id=interaction_id,
            version=version,
            answer=text,
            latency_ms=latency,
            error=error,
        )
        try:
            await self._queries.run(record_shadow, self._database, kept)
        except Exception as failure:  # a shadow is worth no user's trouble; the next one is kept again
            log.warning("an answer in shadow could not be kept: %s", in_short(failure))
