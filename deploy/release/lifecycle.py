"""Write each step of a release: first champion, held night, canary step, promotion, end of the holdback, withdrawal.

Each is a transaction with its ledger entries and the alert that tells people. The state is read first, the step is
decided on it, and the entry is written only if the state still holds. Versions are loaded and proved in the engines
before the entry that names them, never after.
"""

from __future__ import annotations

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import Action, Entry, RefusedTransition, ReleaseState, history
from deploy.ledger.writes import entry_alert, retry, write
from infra.alerts.outbox import Severity


def start(database: Engine, tenant: str, base_version: str, *, actor: str = "up") -> Entry:
    """Make the untouched base model the first champion; the line that stands is returned when there is one."""
    entries = history(database, tenant)
    first = next((entry for entry in entries if entry.action == "baseline"), None)
    if first is not None:
        return first
    entry = Entry(
        tenant=tenant,
        action="baseline",
        version=base_version,
        actor=actor,
        reason="no champion yet, so the base model is the champion",
    )
    seq = entries[-1].seq if entries else 0
    return write(
        database, [entry], seq, entry_alert(entry, "baseline", "info", f"{base_version} serves as the first champion")
    )


def hold(
    database: Engine,
    tenant: str,
    version: str,
    *,
    reason: str,
    night_id: str,
    actor: str = "night",
    evidence: Evidence | None = None,
    severity: Severity = "warning",
) -> Entry:
    """End a night without a release: rejected, inconclusive, or not now. Written once per night."""
    written = night_entry(database, tenant, night_id)
    if written is not None:
        return written
    entry = Entry(
        tenant=tenant,
        action="held",
        version=version,
        actor=actor,
        reason=reason,
        evidence=(evidence or Evidence()).model_copy(update={"night_id": night_id}),
    )
    alert = entry_alert(entry, "held", severity, f"night {night_id} is held: {version} is not released", text=reason)
    return retry(database, tenant, lambda state: write(database, [entry], state.seq, alert))


def night_entry(database: Engine, tenant: str, night_id: str) -> Entry | None:
    """Return how a night ended in the ledger: its canary or held entry; None while it has not."""
    for entry in history(database, tenant):
        opened = entry.action in ("canary", "held") or (entry.action == "gated" and entry.share)
        if entry.night_id == night_id and opened:
            return entry
    return None


def step(
    database: Engine, state: ReleaseState, share: float, *, reason: str, evidence: Evidence | None = None
) -> Entry:
    """Raise the share of new users that the open canary answers.

    Raises:
        Conflict: the ledger moved since `state`.
    """
    entry = _of_watch(state, "canary", reason=reason, evidence=evidence, share=share)
    alert = entry_alert(entry, "canary_step", "info", f"{entry.version} gets {share:.0%} of new users", text=reason)
    return write(database, [entry], state.seq, alert)


def promote(
    database: Engine,
    state: ReleaseState,
    *,
    policy: CanaryPolicy,
    reason: str,
    evidence: Evidence | None = None,
    actor: str = "controller",
) -> Entry:
    """Make the open canary the champion; the one before it stays on for the holdback.

    Raises:
        Conflict: the ledger moved since `state`.
    """
    entry = _of_watch(state, "champion", reason=reason, evidence=evidence, share=policy.holdback, actor=actor)
    alert = entry_alert(
        entry,
        "promoted",
        "info",
        f"{entry.version} is the champion",
        text=f"{reason}. It replaces {entry.previous}"
        + (f", which keeps {policy.holdback:.0%} of new users for comparison." if policy.holdback else "."),
        next_step="`ratchet rollback` takes it back",
    )
    return write(database, [entry], state.seq, alert)


def complete_holdback(database: Engine, state: ReleaseState, *, reason: str, evidence: Evidence | None = None) -> Entry:
    """End the holdback: the previous champion is superseded and the watch is over.

    Raises:
        Conflict: the ledger moved since `state`.
    """
    assert state.watch is not None, "a holdback without a watch"
    entry = Entry(
        tenant=state.tenant,
        action="superseded",
        version=state.watch.previous,
        previous=state.watch.version,
        actor="controller",
        reason=reason,
        evidence=evidence or Evidence(),
    )
    alert = entry_alert(entry, "settled", "info", f"{state.watch.version} has settled; the watch is over", text=reason)
    return write(database, [entry], state.seq, alert)


def withdraw(
    database: Engine,
    state: ReleaseState,
    *,
    actor: str,
    reason: str,
    evidence: Evidence | None = None,
) -> Entry:
    """End the open canary (or drop what is gated) with no verdict against it; it is not barred.

    Raises:
        RefusedTransition: there is neither.
        Conflict: the ledger moved since `state`.
    """
    version = state.canary or state.gated
    if version is None:
        raise RefusedTransition(
            f"tenant {state.tenant!r} has no open canary to withdraw; `ratchet status` shows what is"
        )
    entry = withdrawal(state, version, actor=actor, reason=reason, evidence=evidence)
    alert = entry_alert(
        entry, "withdrawn", "warning", f"{version} is withdrawn; {state.champion} serves all", text=reason
    )
    return write(database, [entry], state.seq, alert)


def withdrawal(
    state: ReleaseState, version: str, *, actor: str, reason: str, evidence: Evidence | None = None
) -> Entry:
    """Make the entry that takes a gated or watched version away, unwritten."""
    return Entry(
        tenant=state.tenant,
        action="withdrawn",
        version=version,
        previous=state.champion,
        actor=actor,
        reason=reason,
        evidence=evidence or Evidence(),
    )


def _of_watch(
    state: ReleaseState,
    action: Action,
    *,
    reason: str,
    evidence: Evidence | None,
    share: float,
    actor: str = "controller",
) -> Entry:
    assert state.watch is not None, f"{action} without a watch"
    return Entry(
        tenant=state.tenant,
        action=action,
        version=state.watch.version,
        previous=state.watch.previous,
        share=share,
        actor=actor,
        reason=reason,
        evidence=evidence or Evidence(),
    )
