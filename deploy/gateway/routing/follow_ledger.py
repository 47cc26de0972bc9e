"""Keep the routing tables in step with the ledger: polled several times a second, swapped whole.

Reading, building and alerting are apart. A read that fails or hangs keeps no lease from running out, and an alert that
cannot be written keeps no rollback from being followed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import Engine

from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.database.background import Background, log_failure, repeat_forever
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.alerts import RoutingAlerts, unwatched_alert
from deploy.gateway.routing.assign import RoutingTable, routing_table
from deploy.gateway.routing.ledger_view import LedgerView, refresh
from deploy.ledger.state import DRILL_TENANT
from infra.database.errors import in_short, is_away
from infra.errors import RatchetError

__all__ = ["RoutingTables", "unwatched_alert"]

log = logging.getLogger(__name__)


class RoutingTables:
    """One routing table per tenant; a tenant without a release of its own is served by the shared one's champion.

    Args:
        queries: is told whether the database answers.
        keep: is handed each view that differs from the one before, to keep it for a start without a database.
    """

    def __init__(
        self,
        database: Engine,
        engines: ReplicaPool,
        *,
        shared: str,
        base: str,
        poll_seconds: float,
        queries: QueryExecutor | None = None,
        keep: Callable[[LedgerView], None] | None = None,
    ) -> None:
        self._database = database
        self._engines = engines
        self._shared = shared
        self._base = base
        self._poll_seconds = poll_seconds
        self._queries = queries or QueryExecutor()
        self._background = Background()
        self._changed = asyncio.Event()
        self._keep = keep
        self._kept = LedgerView()
        self._view = LedgerView()
        self._tables: dict[str, RoutingTable] = {}
        self._alerts = RoutingAlerts(database, self._queries)
        # One thread of its own: whoever else waits for the database must not keep it from being asked.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._task: asyncio.Task[None] | None = None
        self._warming: set[asyncio.Task[None]] = set()
        self._read_at = time.monotonic()
        self.failing: str | None = None
        """Why the last read failed; None: it did not."""

    async def start(self, earlier: LedgerView | None = None) -> None:
        """Read the ledger once, then follow it.

        Args:
            earlier: what an earlier process knew; with it, a database that is away is no reason not to start.
        """
        if earlier is not None:
            self._view = self._kept = earlier
        first = asyncio.create_task(self._read())
        done, _ = await asyncio.wait({first}, timeout=self._queries.seconds if earlier is not None else None)
        if earlier is None or done:
            await self._first(first, earlier)
        self._build_and_warm()
        self._task = self._background.start("following the ledger", self._follow(first))
        self._background.start("building the routing tables", self._keep_building())
        self._background.start("alerting about routing", self._keep_alerting())

    async def stop(self) -> None:
        """Stop following."""
        await self._background.stop()
        self._reader.shutdown(wait=False, cancel_futures=True)

    def of(self, tenant: str) -> RoutingTable:
        """Return the table that routes a tenant's requests now."""
        own = self._alive(tenant)
        if own is not None and not self._is_shared(tenant):
            return own
        shared = self._alive(self._shared)
        plain = RoutingTable(tenant=tenant, champion=shared.champion if shared else self._base)
        return plain.model_copy(update={"champion_seq": shared.champion_seq}) if shared else plain

    def may_name(self, tenant: str, version: str) -> bool:
        """Check whether a tenant may ask for a version by name: not when it is, or may be, another tenant's alone.

        Its own are those its ledger names; the shared tenant's serve all who have none; what no ledger names is a
        challenger that nobody has released, trained on who knows whose data: only the shared tenant may ask for it.
        """
        named = self._view.named
        if version == self._base or version in named.get(tenant, ()):
            return True
        owners = {owner for owner, names in named.items() if version in names}
        if not owners:
            return tenant == self._shared
        return self._is_shared(tenant) and self._shared in owners

    def _is_shared(self, tenant: str) -> bool:
        """Whether the shared tenant's champion answers a tenant: a baseline, which every tenant gets, is no release.

        The drill's tenant stands alone: a drill waits for the base to answer.
        """
        return tenant not in (self._shared, DRILL_TENANT) and tenant not in self._view.released

    @property
    def all(self) -> tuple[RoutingTable, ...]:
        """Every tenant's own table."""
        return tuple(self._tables.values())

    @property
    def unread(self) -> dict[str, str]:
        """Tenant -> why its lines cannot be followed to the last."""
        return self._view.unread

    @property
    def ended(self) -> dict[str, str]:
        """Tasks that ended without being asked to, and of what: routing is not followed any more."""
        return self._background.ended

    @property
    def age_seconds(self) -> float:
        """How long ago ledger and leases were read whole."""
        return time.monotonic() - self._read_at

    @property
    def pinned(self) -> frozenset[str]:
        """Versions that must stay loaded: routed to, or one ledger line away from it."""
        return frozenset(name for known in self._view.states.values() for name in known.pinned)

    def _alive(self, tenant: str) -> RoutingTable | None:
        """The tenant's table; one of a watch whose lease has run out since it was built counts no more."""
        table = self._tables.get(tenant)
        if table is None or table.phase is None or self._view.lease_runs(tenant):
            return table
        known = self._view.states.get(tenant)
        return routing_table(known, base=self._base, lease_valid=False) if known is not None else table

    async def _first(self, reading: asyncio.Task[None], earlier: LedgerView | None) -> None:
        try:
            await reading
        except Exception as error:
            if earlier is None or not is_away(error):
                raise
            self._note(error)

    async def _follow(self, first: asyncio.Task[None]) -> None:
        with suppress(Exception):  # the first read may still be out, of a database that hangs
            await first
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self._read()
                self._build_and_warm()
            except Exception as error:  # whatever it is: the next look may succeed, and no look is the worst of all
                self._note(error)

    async def _read(self) -> None:
        self._queries.mark_asking()
        view = await asyncio.get_running_loop().run_in_executor(self._reader, refresh, self._database, self._view)
        self._view, self._read_at = view, time.monotonic()
        self._queries.mark_answered()
        if self.failing is not None:
            log.info("the ledger can be read again")
        self.failing = None

    def _note(self, error: Exception) -> None:
        # Keep serving by the last lines read: a database that is away takes no release with it.
        said = in_short(error)
        if self.failing is None:
            log.error("the ledger cannot be read, routing stays as it was: %s", said)
        self.failing = said
        if is_away(error):
            self._queries.mark_failed(said)
        else:
            self._queries.mark_answered()  # it said something, if nothing that helps

    async def _keep_building(self) -> None:
        async def build() -> None:
            self._build_and_warm()
            if self._keep is not None and (self._view.states, self._view.released) != (
                self._kept.states,
                self._kept.released,
            ):
                view = self._view
                await asyncio.to_thread(self._keep, view)
                self._kept = view

        await repeat_forever("building the routing tables", build, self._poll_seconds)

    async def _keep_alerting(self) -> None:
        async def alert() -> None:
            await _either(self._changed, self._poll_seconds)
            if self._queries.away is None and self.failing is None:
                await self._alerts.look(self._view, self.all)

        await repeat_forever("alerting about routing", alert, 0.0)

    def _build_and_warm(self) -> None:
        if self._build():
            self._warm()
            self._changed.set()

    def _build(self) -> bool:
        """Swap each table by one assignment; whether one changed."""
        changed = False
        for tenant, known in self._view.states.items():
            alive = known.watch is None or self._view.lease_runs(tenant)
            table = routing_table(known, base=self._base, lease_valid=alive)
            if table == self._tables.get(tenant):
                continue
            self._tables[tenant] = table
            changed = True
            log.info("tenant %s: line %d, champion %s, watch %s", tenant, table.seq, table.champion, table.challenger)
        return changed

    def _warm(self) -> None:
        """Load what may be routed to before the first request asks for it, and what a rollback would need."""
        wanted = {name for table in self._tables.values() for name in table.wanted}
        for version in wanted | self.pinned:
            task = asyncio.create_task(self._ensure(version))
            self._warming.add(task)
            task.add_done_callback(self._warming.discard)
            log_failure(task, f"loading {version}")

    async def _ensure(self, version: str) -> None:
        with suppress(RatchetError):  # logged there; a request that needs it gets the error
            await self._engines.warm(version)


async def _either(changed: asyncio.Event, seconds: float) -> None:
    """Return when something changed, or after `seconds`."""
    waiting = asyncio.create_task(changed.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
    changed.clear()
