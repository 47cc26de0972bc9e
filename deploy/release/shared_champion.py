"""Give a tenant without a champion of its own the shared one, which answers its users already."""

from __future__ import annotations

from sqlalchemy import Engine

from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import Entry, ReleaseState, current
from deploy.ledger.writes import entry_alert, retry, write
from infra.database.connect import now


def inherit(database: Engine, tenant: str, shared: str, *, actor: str = "night") -> Entry | None:
    """Make the shared champion a tenant's, where it never had its own; returns the entry, if one was needed.

    Its users get the shared champion's answers already. Without this line its nights would be judged against the base
    model, and its first canary would give the base to everybody whom the canary does not answer.

    Args:
        shared: the tenant whose champion serves tenants without releases of their own.
    """
    if tenant == shared:
        return None

    def attempt(state: ReleaseState) -> Entry | None:
        theirs = current(database, shared)
        version = theirs.champion
        if version is None or version == state.champion or version in state.barred:
            return None
        if state.champion is None or state.own_champion or state.watch is not None or state.paused_at(now()):
            return None
        entry = Entry(
            tenant=tenant,
            action="inherited",
            version=version,
            previous=state.champion,
            actor=actor,
            reason=f"it has no champion of its own, and tenant {shared!r} shares this one",
            evidence=Evidence(shared=shared, line=theirs.champion_seq),
        )
        return write(database, [entry], state.seq, entry_alert(entry, "inherited", "info", f"{version} is taken over"))

    return retry(database, tenant, attempt)
