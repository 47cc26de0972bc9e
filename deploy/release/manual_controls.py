"""Bar a version, lift its bar, pause and resume the nights' releases: what a person decides by hand."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import Action, Entry, ReleaseState
from deploy.ledger.writes import entry_alert, retry, write


def bar(database: Engine, tenant: str, version: str, *, actor: str, reason: str) -> Entry:
    """Bar a version that is not live from ever being released, until a person lifts it."""
    return _by_person(database, tenant, "barred", version, f"{version} is barred", actor=actor, reason=reason)


def lift_bar(database: Engine, tenant: str, version: str, *, actor: str, reason: str) -> Entry:
    """Allow a barred version to be released again."""
    title = f"{version} may be released again"
    return _by_person(database, tenant, "unbarred", version, title, actor=actor, reason=reason)


def pause(database: Engine, tenant: str, *, actor: str, reason: str, until: datetime | None = None) -> Entry:
    """Stop nights from releasing, until `until` or until a person resumes."""
    ends = Evidence(paused_until=until) if until else None
    return _by_person(
        database, tenant, "paused", None, "promotions are paused", actor=actor, reason=reason, evidence=ends
    )


def resume(database: Engine, tenant: str, *, actor: str, reason: str) -> Entry:
    """Let nights release again."""
    return _by_person(database, tenant, "resumed", None, "promotions go on", actor=actor, reason=reason)


def _by_person(
    database: Engine,
    tenant: str,
    action: Action,
    version: str | None,
    title: str,
    *,
    actor: str,
    reason: str,
    evidence: Evidence | None = None,
) -> Entry:
    def attempt(state: ReleaseState) -> Entry:
        entry = Entry(
            tenant=tenant,
            action=action,
            version=version or state.champion or "none",
            actor=actor,
            reason=reason,
            evidence=evidence or Evidence(),
        )
        alert = entry_alert(entry, action, "info", f"{title} (by {actor})", text=reason)
        return write(database, [entry], state.seq, alert)

    return retry(database, tenant, attempt)
