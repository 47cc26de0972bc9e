"""The routing tables, following the ledger: looked at several times a second, swapped whole."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deploy.gateway.loading import Loading
from deploy.lease import lease_valid
from deploy.ledger import current, last_seq, tenants
from deploy.routing import RoutingTable, table_of
from deploy.standing import Standing
from infra.alerts import Alert, enqueue
from infra.database import begin_write
from infra.errors import RatchetError

log = logging.getLogger(__name__)

_FIRST_LEASE_SECONDS = 10.0
"""A watch that was just opened has no lease before the controller's next look: no reason to wake anybody."""


class Tables:
    """One routing table per tenant; a tenant without a release of its own is served by the shared one's champion."""

    def __init__(self, engine: Engine, loading: Loading, *, shared: str, base: str, poll_seconds: float) -> None:
        self._engine = engine
        self._loading = loading
        self._shared = shared
        self._base = base
        self._poll_seconds = poll_seconds
        self._tables: dict[str, RoutingTable] = {}
        self._standings: dict[str, Standing] = {}
        self._alert_from: dict[tuple[str, int], float] = {}
        self._task: asyncio.Task[None] | None = None
        self._warming: set[asyncio.Task[None]] = set()
        self.failing: str | None = None

    async def start(self) -> None:
        """Read the ledger once, then follow it."""
        await asyncio.to_thread(self._read)
        self._warm()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def of(self, tenant: str) -> RoutingTable:
        """The table that routes a tenant's requests now."""
        own = self._tables.get(tenant)
        if own is not None:
            return own
        shared = self._tables.get(self._shared)
        plain = RoutingTable(tenant=tenant, champion=shared.champion if shared else self._base)
        return plain.model_copy(update={"champion_seq": shared.champion_seq}) if shared else plain

    @property
    def all(self) -> tuple[RoutingTable, ...]:
        """Every tenant's own table."""
        return tuple(self._tables.values())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                changed = await asyncio.to_thread(self._read)
                self.failing = None
            except (SQLAlchemyError, RatchetError) as error:
                # Keep serving by the last table: a database that is away takes no release with it.
                if self.failing is None:
                    log.error("the ledger cannot be read, routing stays as it was: %s", error)
                self.failing = str(error)
                continue
            if changed:
                self._warm()

    def _read(self) -> bool:
        """Runs on a thread of its own; swaps each table by one assignment."""
        changed = False
        for tenant in tenants(self._engine):
            known = self._standings.get(tenant)
            if known is None or last_seq(self._engine, tenant) != known.seq:
                known = current(self._engine, tenant)
                self._standings[tenant] = known
            alive = known.watch is None or lease_valid(self._engine, tenant)
            table = table_of(known, base=self._base, lease_valid=alive)
            self._mind_lease(known, alive)
            if table == self._tables.get(tenant):
                continue
            self._tables[tenant] = table
            changed = True
            log.info("tenant %s: line %d, champion %s, watch %s", tenant, table.seq, table.champion, table.challenger)
        return changed

    def _mind_lease(self, standing: Standing, alive: bool) -> None:
        """Alert once for each time the lease is lost; a new watch first gets a moment to be taken up."""
        if standing.watch is None:
            return
        key, now = (standing.tenant, standing.watch.opened_seq), time.monotonic()
        due = self._alert_from.setdefault(key, now + _FIRST_LEASE_SECONDS)
        if alive:
            self._alert_from[key] = now
        elif now >= due:
            self._alert_from[key] = float("inf")
            self._alert_lease(standing)

    def _alert_lease(self, standing: Standing) -> None:
        assert standing.watch is not None
        log.error("tenant %s: nobody watches %s; everyone gets the champion", standing.tenant, standing.watch.version)
        alert = Alert(
            kind="canary_unwatched",
            severity="critical",
            tenant=standing.tenant,
            title=f"nobody watches {standing.watch.version}: all traffic goes to the champion",
            text="The controller has not renewed its lease, so the gateway stopped the comparison until it does.",
            next_step="look at `ratchet status`; start the controller again with `ratchet up`",
            dedupe_key=f"canary_unwatched/{standing.tenant}/{standing.watch.step_seq}",
        )
        with begin_write(self._engine) as connection:
            enqueue(connection, alert)

    def _warm(self) -> None:
        """Load what may be routed to before the first request asks for it."""
        for version in {name for table in self._tables.values() for name in table.versions}:
            task = asyncio.create_task(self._ensure(version))
            self._warming.add(task)
            task.add_done_callback(self._warming.discard)

    async def _ensure(self, version: str) -> None:
        with suppress(RatchetError):  # logged there; a request that needs it gets the error
            await self._loading.ensure(version)
