"""A tenant without a champion of its own takes over the shared one, which answers its users already."""

from __future__ import annotations

from sqlalchemy import Engine

from deploy.ledger.ledger import Entry, Standing, current
from deploy.ledger.writes import line_alert, retry, write
from infra.database.connect import now


def inherit(engine: Engine, tenant: str, shared: str, *, actor: str = "night") -> Entry | None:
    """Where a tenant never had a champion of its own, make the shared one its champion; the line, if one was needed.

    Its users get the shared champion's answers already. Without this line its nights would be judged against the base
    model, and its first canary would give the base to everybody whom the canary does not answer.

    Args:
        shared: the tenant whose champion serves tenants without releases of their own.
    """
    if tenant == shared:
        return None

    def line(before: Standing) -> Entry | None:
        theirs = current(engine, shared)
        version = theirs.champion
        if version is None or version == before.champion or version in before.barred:
            return None
        if before.champion is None or before.own_champion or before.watch is not None or before.paused_at(now()):
            return None
        entry = Entry(
            tenant=tenant,
            action="inherited",
            version=version,
            previous=before.champion,
            actor=actor,
            reason=f"it has no champion of its own, and tenant {shared!r} shares this one",
            evidence={"shared": shared, "line": theirs.champion_seq},
        )
        return write(engine, [entry], before.seq, line_alert(entry, "inherited", "info", f"{version} is taken over"))

    return retry(engine, tenant, line)
