"""The routing tables, following the ledger: looked at several times a second, swapped whole."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from deploy.gateway.engines import Engines
from deploy.lease import all_seconds_left, canary_lease
from deploy.ledger import history, last_seqs
from deploy.routing import RoutingTable, table_of
from deploy.standing import DRILL_TENANT, Standing, has_release
from deploy.transitions import standing
from infra.alerts import Alert, enqueue
from infra.database import begin_write, now
from infra.errors import RatchetError

log = logging.getLogger(__name__)
_FIRST_LEASE_SECONDS = 10.0
"""A watch that was just opened has no lease before the controller's next look: no reason to wake anybody."""


class Tables:
    """One routing table per tenant; a tenant without a release of its own is served by the shared one's champion."""

    def __init__(self, engine: Engine, engines: Engines, *, shared: str, base: str, poll_seconds: float) -> None:
        self._engine = engine
        self._engines = engines
        self._shared = shared
        self._base = base
        self._poll_seconds = poll_seconds
        self._tables: dict[str, RoutingTable] = {}
        self._standings: dict[str, Standing] = {}
        self._named: dict[str, frozenset[str]] = {}
        self._released: set[str] = set()
        # When each open watch's lease runs out, on our own clock: it must run out while the database is away too.
        self._lease_ends: dict[str, float] = {}
        self._alert_from: dict[tuple[str, int], float] = {}
        self._task: asyncio.Task[None] | None = None
        self._warming: set[asyncio.Task[None]] = set()
        self.failing: str | None = None

    async def start(self) -> None:
        """Read the ledger once, then follow it."""
        await asyncio.to_thread(self._read)
        self._build()
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
        if own is not None and not self._is_shared(tenant):
            return own
        shared = self._tables.get(self._shared)
        plain = RoutingTable(tenant=tenant, champion=shared.champion if shared else self._base)
        return plain.model_copy(update={"champion_seq": shared.champion_seq}) if shared else plain

    def may_name(self, tenant: str, version: str) -> bool:
        """Whether a tenant may ask for a version by name: not when it is, or may be, another tenant's alone.

        Its own are those its ledger names; the shared tenant's serve all who have none; what no ledger names is a
        challenger that nobody has released, trained on who knows whose data: only the shared tenant may ask for it.
        """
        if version == self._base or version in self._named.get(tenant, ()):
            return True
        owners = {owner for owner, names in self._named.items() if version in names}
        if not owners:
            return tenant == self._shared
        return self._is_shared(tenant) and self._shared in owners

    def _is_shared(self, tenant: str) -> bool:
        """Whether the shared tenant's champion answers a tenant: a baseline, which every tenant gets, is no release.

        The drill's tenant stands alone: a drill waits for the base to answer.
        """
        return tenant not in (self._shared, DRILL_TENANT) and tenant not in self._released

    @property
    def all(self) -> tuple[RoutingTable, ...]:
        """Every tenant's own table."""
        return tuple(self._tables.values())

    @property
    def pinned(self) -> frozenset[str]:
        """Versions that must stay loaded: routed to, or one ledger line away from it."""
        return frozenset(name for known in self._standings.values() for name in known.pinned)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await asyncio.to_thread(self._read)
                self.failing = None
            except (SQLAlchemyError, RatchetError) as error:
                # Keep serving by the last lines read: a database that is away takes no release with it.
                if self.failing is None:
                    log.error("the ledger cannot be read, routing stays as it was: %s", str(error).splitlines()[0])
                self.failing = str(error)
            if self._build():
                self._warm()
            if self.failing is None:
                await self._alert_leases()

    def _read(self) -> None:
        """What changed in the ledger, and how long leases still run. Runs on a thread of its own."""
        at, left = time.monotonic(), all_seconds_left(self._engine)
        for tenant, seq in last_seqs(self._engine).items():
            known = self._standings.get(tenant)
            if known is None or seq != known.seq:
                lines = history(self._engine, tenant)
                self._named[tenant] = frozenset(line.version for line in lines)
                if has_release(lines):
                    self._released.add(tenant)
                self._standings[tenant] = standing(lines, tenant=tenant)
            self._lease_ends[tenant] = at + left.get(canary_lease(tenant), 0.0)

    def _build(self) -> bool:
        """Swap each table by one assignment; whether one changed."""
        changed = False
        for tenant, known in self._standings.items():
            alive = known.watch is None or time.monotonic() < self._lease_ends.get(tenant, 0.0)
            table = table_of(known, base=self._base, lease_valid=alive)
            if table == self._tables.get(tenant):
                continue
            self._tables[tenant] = table
            changed = True
            log.info("tenant %s: line %d, champion %s, watch %s", tenant, table.seq, table.champion, table.challenger)
        return changed

    async def _alert_leases(self) -> None:
        """Alert once for each time a lease is lost; a new watch first gets a moment to be taken up."""
        at = time.monotonic()
        for tenant, table in self._tables.items():
            watch = self._standings[tenant].watch
            if watch is None:
                continue
            key = (tenant, watch.opened_seq)
            due = self._alert_from.setdefault(key, at + _FIRST_LEASE_SECONDS)
            if not table.lease_lost:
                self._alert_from[key] = at
            elif at >= due:
                log.error("tenant %s: nobody watches %s; everyone gets the champion", tenant, watch.version)
                try:
                    await asyncio.to_thread(self._alert_lease, tenant, watch.version, watch.step_seq)
                except SQLAlchemyError as error:
                    log.error("the alert about it could not be written: %s", str(error).splitlines()[0])
                    return
                self._alert_from[key] = float("inf")

    def _alert_lease(self, tenant: str, version: str, step_seq: int) -> None:
        alert = unwatched_alert(tenant, version, step_seq, now())
        with begin_write(self._engine) as connection:
            enqueue(connection, alert)

    def _warm(self) -> None:
        """Load what may be routed to before the first request asks for it, and what a rollback would need."""
        wanted = {name for table in self._tables.values() for name in table.wanted}
        for version in wanted | self.pinned:
            task = asyncio.create_task(self._ensure(version))
            self._warming.add(task)
            task.add_done_callback(self._warming.discard)

    async def _ensure(self, version: str) -> None:
        with suppress(RatchetError):  # logged there; a request that needs it gets the error
            await self._engines.warm(version)


def unwatched_alert(tenant: str, version: str, step_seq: int, at: datetime) -> Alert:
    """Nobody watches an open canary. Once an hour and step, whichever gateway sees it: a second loss is told too."""
    return Alert(
        kind="canary_unwatched",
        severity="critical",
        tenant=tenant,
        title=f"nobody watches {version}: all traffic goes to the champion",
        text="The controller has not renewed its lease, so the gateway stopped the comparison until it does.",
        next_step="look at `ratchet status`; start the controller again with `ratchet up`",
        dedupe_key=f"canary_unwatched/{tenant}/{step_seq}/{at:%Y-%m-%dT%H}",
    )
