"""Watch a version in shadow: when its time is over its canary opens, or it is withdrawn."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy, stated_policy
from deploy.controller.alert_once import alert_once, is_told
from deploy.experiments.shadow import Prefer, ShadowReport, compare
from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import Entry, ReleaseState, current, history
from deploy.ledger.writes import entry_alert, write
from deploy.release.lifecycle import withdraw
from deploy.release.preconditions import compared_with_another
from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.errors import Conflict

log = logging.getLogger(__name__)
FEWEST_COPIES = 20
"""Copies below which failures say nothing yet."""


def watch_shadow(
    database: Engine,
    tenant: str,
    *,
    policy: CanaryPolicy,
    shadow_only: bool = False,
    prefer: Prefer | None = None,
    at: datetime | None = None,
) -> Entry | None:
    """Act on the tenant's version in shadow; the line that was written, if any. No canary opens while releases pause.

    Where another champion is live by now than the one that the gate compared it with, the version is withdrawn.

    The policy it was gated with counts; `policy` only where the ledger names none.

    Args:
        shadow_only: an endpoint outside of Ratchet is champion, so no canary opens: when the time is over people are
            told how the version compares, once.
        prefer: a blind judge, asked when the time is over.
    """
    state = current(database, tenant)
    version = state.shadow
    if version is None or state.gated_at is None:
        return None
    gated = history(database, tenant, after_seq=state.gated_seq - 1)[0]
    policy = stated_policy(gated.evidence.policy, policy)
    report = compare(database, tenant, version)
    try:
        stale = compared_with_another(gated.evidence, state)
        if stale is not None:
            reason = (
                f"it {stale}, so its canary would rest on no verdict; `ratchet run nightly --force` compares it anew"
            )
            return withdraw(database, state, actor="controller", reason=reason)
        if report.copies >= FEWEST_COPIES and report.failed > policy.shadow_failures * report.copies:
            reason = f"in shadow it failed to answer {report.failed} of {report.copies} requests"
            return withdraw(
                database, state, actor="controller", reason=reason, evidence=_with_report(Evidence(), report)
            )
        if ((at or now()) - state.gated_at).total_seconds() < policy.shadow_seconds:
            return None
        if shadow_only and is_told(database, _once(state)):
            return None
        if not shadow_only and _waits(database, state, gated, at or now()):
            return None  # it goes on answering in shadow, and opens when nights may release again
        if prefer is not None:
            report = compare(database, tenant, version, prefer=prefer)
        if shadow_only:
            alert_once(database, _compared_alert(state, report))
            return None
        return _open_canary(database, state, gated, policy, report)
    except Conflict as lost:
        log.info("%s", lost)  # somebody moved first; the next look decides on what stands then
        return None


def _waits(database: Engine, state: ReleaseState, gated: Entry, at: datetime) -> bool:
    """Whether a pause holds the canary back; a person who named an override during the pause meant it to open."""
    if not state.paused_at(at):
        return False
    since = history(database, state.tenant, after_seq=gated.seq)
    stopped_since = any(entry.action in ("paused", "rolled_back") for entry in since)
    return stopped_since or not gated.evidence.override


def _open_canary(
    database: Engine, state: ReleaseState, gated: Entry, policy: CanaryPolicy, report: ShadowReport
) -> Entry:
    canary = Entry(
        tenant=state.tenant,
        action="canary",
        version=gated.version,
        previous=state.champion,
        share=policy.shares[0],
        actor="controller",
        reason=f"canary opens after {policy.shadow_seconds:g} s in shadow: {gated.reason}",
        evidence=_with_report(gated.evidence, report),
    )
    alert = entry_alert(
        canary,
        "release_opened",
        "info",
        f"{canary.version} gets {policy.shares[0]:.0%} of new users",
        text=f"{canary.reason.rstrip('.')}. Compared with {state.champion} user by user.",
        next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
    )
    return write(database, [canary], state.seq, alert)


def _with_report(evidence: Evidence, report: ShadowReport) -> Evidence:
    return evidence.model_copy(update={"shadow": report.model_dump(mode="json")})


def _once(state: ReleaseState) -> str:
    return f"shadow_compared/{state.tenant}/{state.gated_seq}"


def _compared_alert(state: ReleaseState, report: ShadowReport) -> Alert:
    return Alert(
        kind="shadow_compared",
        severity="info",
        tenant=state.tenant,
        title=f"{state.shadow} has answered in shadow: see how it compares",
        text="Your own endpoint stays the champion. `ratchet shadow` shows both sides on the same requests.",
        next_step="`ratchet shadow`; to let it answer users, take serving.upstream_url out of the config",
        payload={"shadow": report.model_dump(mode="json")},
        dedupe_key=_once(state),
    )
