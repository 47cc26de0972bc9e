"""Alert about routing: an open canary that nobody watches, entries of the ledger that cannot be followed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Engine

from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.routing.assign import RoutingTable
from deploy.gateway.routing.ledger_view import LedgerView
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write, now

log = logging.getLogger(__name__)
_FIRST_LEASE_SECONDS = 10.0
"""A watch that was just opened has no lease before the controller's next look: no reason to wake anybody."""


class RoutingAlerts:
    """Alerts once for each trouble; what could not be written is written at the next look."""

    def __init__(self, database: Engine, queries: QueryExecutor) -> None:
        self._database, self._queries = database, queries
        self._lost_from: dict[tuple[str, int], float] = {}
        self._told: set[str] = set()

    async def look(self, view: LedgerView, tables: Iterable[RoutingTable]) -> None:
        """Write what is new."""
        for tenant, why in view.unread.items():
            await self._write_once(unread_alert(tenant, view.states[tenant].seq, why))
        await self._lost_leases(view, tables)

    async def _lost_leases(self, view: LedgerView, tables: Iterable[RoutingTable]) -> None:
        at = time.monotonic()
        for table in tables:
            known = view.states.get(table.tenant)
            watch = known.watch if known is not None else None
            if watch is None:
                continue
            key = (table.tenant, watch.opened_seq)
            due = self._lost_from.setdefault(key, at + _FIRST_LEASE_SECONDS)
            if not table.lease_lost:
                self._lost_from[key] = at
            elif at >= due:
                log.error("tenant %s: nobody watches %s; everyone gets the champion", table.tenant, watch.version)
                await self._write_once(unwatched_alert(table.tenant, watch.version, watch.step_seq, now()))
                self._lost_from[key] = float("inf")

    async def _write_once(self, alert: Alert) -> None:
        key = alert.dedupe_key or alert.alert_id
        if key in self._told:
            return
        await self._queries.run(self._write, alert)
        self._told.add(key)

    def _write(self, alert: Alert) -> None:
        with begin_write(self._database) as connection:
            enqueue(connection, alert)


def unwatched_alert(tenant: str, version: str, step_seq: int, at: datetime) -> Alert:
    """Make the alert of an open canary that nobody watches: once an hour and step, whichever gateway sees it."""
    return Alert(
        kind="canary_unwatched",
        severity="critical",
        tenant=tenant,
        title=f"nobody watches {version}: all traffic goes to the champion",
        text="The controller has not renewed its lease, so the gateway stopped the comparison until it does.",
        next_step="look at `ratchet status`; start the controller again with `ratchet up`",
        dedupe_key=f"canary_unwatched/{tenant}/{step_seq}/{at:%Y-%m-%dT%H}",
    )


def unread_alert(tenant: str, seq: int, why: str) -> Alert:
    """Make the alert of a ledger entry that cannot be followed: once an entry, whichever gateway sees it."""
    return Alert(
        kind="ledger_unread",
        severity="critical",
        tenant=tenant,
        title=f"the ledger of tenant {tenant} cannot be followed: its traffic goes to the last known champion",
        text=f"{why}. No canary or shadow runs for this tenant meanwhile; other tenants are not concerned.",
        next_step="bring every gateway and controller to the release of Ratchet that wrote the line; "
        "`ratchet ledger` shows it",
        dedupe_key=f"ledger_unread/{tenant}/{seq}",
    )
