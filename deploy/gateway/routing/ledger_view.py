"""Read ledger and leases into one view for routing: each tenant apart, swapped whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from deploy.ledger.last_known import closed, last_known
from deploy.ledger.lease import all_seconds_left, canary_lease
from deploy.ledger.ledger import history, last_seqs
from deploy.ledger.state import ReleaseState, has_release
from infra.database.errors import in_short, is_away, is_of_other_tables

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerView:
    """What routing rests on."""

    states: Mapping[str, ReleaseState] = field(default_factory=dict)
    """Tenant -> what its lines add up to, as far as they can be read."""
    named: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tenant -> versions that its lines name."""
    released: frozenset[str] = frozenset()
    """Tenants with a release of their own."""
    lease_ends: Mapping[str, float] = field(default_factory=dict)
    """When each open watch's lease runs out, on our own clock: it must run out while the database is away too."""

    @property
    def unread(self) -> dict[str, str]:
        """Tenant -> why its lines cannot be followed to the last."""
        return {tenant: known.unread for tenant, known in self.states.items() if known.unread is not None}

    def lease_runs(self, tenant: str) -> bool:
        """Check whether somebody watches the tenant's open canary now."""
        return time.monotonic() < self.lease_ends.get(tenant, 0.0)


def refresh(database: Engine, earlier: LedgerView) -> LedgerView:
    """Read the view anew: entries of those tenants that have new ones, leases of all.

    What one tenant's lines hold, however odd, is that tenant's trouble: it goes to its last known champion, and nobody
    else notices.

    Raises:
        Exception: the database cannot be asked; nothing of `earlier` is wrong for it but its age.
    """
    at, left = time.monotonic(), all_seconds_left(database)
    states, named, released = dict(earlier.states), dict(earlier.named), set(earlier.released)
    seqs = last_seqs(database)
    for tenant, seq in seqs.items():
        known = states.get(tenant)
        if known is not None and seq == known.seq:
            continue
        try:
            entries = history(database, tenant)
            states[tenant] = last_known(entries, tenant=tenant)
            named[tenant] = frozenset(entry.version for entry in entries)
            if has_release(entries):
                released.add(tenant)
        except Exception as error:
            if is_away(error) or is_of_other_tables(error):
                raise
            why = f"its lines cannot be read ({type(error).__name__}: {in_short(error)})"
            states[tenant] = closed(known or ReleaseState(tenant=tenant), why)
        _log_unread(tenant, known, states[tenant])
    ends = {tenant: at + left.get(canary_lease(tenant), 0.0) for tenant in seqs}
    return LedgerView(states, named, frozenset(released), ends)


def _log_unread(tenant: str, earlier: ReleaseState | None, now: ReleaseState) -> None:
    if now.unread is not None and (earlier is None or earlier.unread != now.unread):
        log.error("tenant %s goes to its last known champion, %s: %s", tenant, now.champion or "the base", now.unread)
