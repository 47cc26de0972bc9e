"""One look at a version in shadow: when its time is over its canary opens, or it is withdrawn."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select

from deploy.canary.policy import CanaryPolicy
from deploy.experiments.shadow import Prefer, compare
from deploy.ledger.ledger import Entry, Standing, current, history
from deploy.ledger.writes import line_alert, write
from deploy.release.lifecycle import withdraw
from deploy.release.preconditions import compared_with_another
from infra.alerts.outbox import Alert, enqueue, outbox
from infra.database.connect import begin_write, now
from infra.errors import Conflict

log = logging.getLogger(__name__)
FEWEST_COPIES = 20
"""Copies below which failures say nothing yet."""


def look_at_shadow(
    engine: Engine,
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
    before = current(engine, tenant)
    version = before.shadow
    if version is None or before.gated_at is None:
        return None
    gated = history(engine, tenant, after_seq=before.gated_seq - 1)[0]
    stated = gated.evidence.get("policy")
    policy = CanaryPolicy.model_validate(stated, extra="ignore") if stated else policy
    report = compare(engine, tenant, version)
    try:
        stale = compared_with_another(gated.evidence, before)
        if stale is not None:
            reason = (
                f"it {stale}, so its canary would rest on no verdict; `ratchet run nightly --force` compares it anew"
            )
            return withdraw(engine, before, actor="controller", reason=reason)
        if report.copies >= FEWEST_COPIES and report.failed > policy.shadow_failures * report.copies:
            reason = f"in shadow it failed to answer {report.failed} of {report.copies} requests"
            facts = {"shadow": report.model_dump(mode="json")}
            return withdraw(engine, before, actor="controller", reason=reason, evidence=facts)
        if ((at or now()) - before.gated_at).total_seconds() < policy.shadow_seconds:
            return None
        if shadow_only and _told(engine, before):
            return None
        if not shadow_only and _waits(engine, before, gated, at or now()):
            return None  # it goes on answering in shadow, and opens when nights may release again
        if prefer is not None:
            report = compare(engine, tenant, version, prefer=prefer)
        facts = {"shadow": report.model_dump(mode="json")}
        if shadow_only:
            _tell_compared(engine, before, facts)
            return None
        return _open(engine, before, gated, policy, facts)
    except Conflict as lost:
        log.info("%s", lost)  # somebody moved first; the next look decides on what stands then
        return None


def _waits(engine: Engine, before: Standing, gated: Entry, at: datetime) -> bool:
    """Whether a pause holds the canary back; a person who named an override during the pause meant it to open."""
    if not before.paused_at(at):
        return False
    since = history(engine, before.tenant, after_seq=gated.seq)
    stopped_since = any(line.action in ("paused", "rolled_back") for line in since)
    return stopped_since or not gated.evidence.get("override")


def _open(engine: Engine, before: Standing, gated: Entry, policy: CanaryPolicy, facts: dict[str, Any]) -> Entry:
    canary = Entry(
        tenant=before.tenant,
        action="canary",
        version=gated.version,
        previous=before.champion,
        share=policy.shares[0],
        actor="controller",
        reason=f"canary opens after {policy.shadow_seconds:g} s in shadow: {gated.reason}",
        evidence={**gated.evidence, **facts},
    )
    alert = line_alert(
        canary,
        "release_opened",
        "info",
        f"{canary.version} gets {policy.shares[0]:.0%} of new users",
        text=f"{canary.reason.rstrip('.')}. Compared with {before.champion} user by user.",
        next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
    )
    return write(engine, [canary], before.seq, alert)


def _once(before: Standing) -> str:
    return f"shadow_compared/{before.tenant}/{before.gated_seq}"


def _told(engine: Engine, before: Standing) -> bool:
    with engine.connect() as connection:
        query = select(outbox.c.alert_id).where(outbox.c.dedupe_key == _once(before))
        return connection.execute(query).first() is not None


def _tell_compared(engine: Engine, before: Standing, facts: dict[str, Any]) -> None:
    alert = Alert(
        kind="shadow_compared",
        severity="info",
        tenant=before.tenant,
        title=f"{before.shadow} has answered in shadow: see how it compares",
        text="Your own endpoint stays the champion. `ratchet shadow` shows both sides on the same requests.",
        next_step="`ratchet shadow`; to let it answer users, take serving.upstream_url out of the config",
        payload=facts,
        dedupe_key=_once(before),
    )
    with begin_write(engine) as connection:
        enqueue(connection, alert)
