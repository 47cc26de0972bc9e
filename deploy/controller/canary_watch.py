"""Watch one tenant's canary: prolong its lease, assess the frozen rows, and do what the assessment says.

Everything is read anew at every look and written by compare-and-set, so a look may be killed anywhere and repeated.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Engine, func, select

from deploy.canary.assess import Assessment, assess
from deploy.canary.last_assessment import store_assessment
from deploy.canary.policy import CanaryPolicy, stated_policy
from deploy.canary.rating_filter import Reason, exclude_abuse, ratings_of
from deploy.canary.rescore import rescored
from deploy.canary.units import AssignedCount, FrozenUnit, Observations, frozen_before, frozen_units
from deploy.controller.alert_once import alert_once
from deploy.controller.quality_watch import complaint_rate
from deploy.ledger.evidence import Prove
from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import ReleaseState, Watch, current, history
from deploy.release.lifecycle import complete_holdback, promote, step, withdraw
from deploy.release.rollback import roll_back_from
from feedback.store.store import Store, interactions
from infra.alerts.outbox import Alert, Severity
from infra.database.connect import now
from infra.errors import Conflict

log = logging.getLogger(__name__)


def watch_canary(
    database: Engine,
    tenant: str,
    *,
    policy: CanaryPolicy,
    holder: str,
    at: datetime | None = None,
    prove: Prove | None = None,
) -> Assessment | None:
    """Assess the tenant's open watch and act on it; None without one, or while another controller holds its lease.

    The policy that the canary was opened with counts; `policy` only where the ledger names none.

    Args:
        prove: loads and proves the version that a rollback would go to; one that fails yields to the one before it.
    """
    state = current(database, tenant)
    watch = state.watch
    if watch is None:
        return None
    policy = policy_in_force(database, state, policy)
    if not renew(database, canary_lease(tenant), holder, policy.lease_seconds):
        return None
    at = at or now()
    assessment = assess_watch(database, state, watch, policy, at)
    store_assessment(database, tenant, watch, assessment, at)
    try:
        _act(database, state, watch, policy, assessment, prove)
    except Conflict as lost:
        log.info("%s", lost)  # somebody moved first; the next look decides on what stands then
    return assessment


def assess_watch(database: Engine, state: ReleaseState, watch: Watch, policy: CanaryPolicy, at: datetime) -> Assessment:
    """Assess a watch at a time, from the stored rows alone."""
    store, tenant = Store(database), state.tenant
    abuse = _abuse(database, tenant, watch, policy)
    version = control = 0
    for seq in _seqs(watch):
        counts = store.assigned_units(tenant, seq)
        promoted = seq == watch.champion_seq
        version += counts.get("champion" if promoted else "canary", 0)
        control += counts.get("holdback", 0) + (0 if promoted else counts.get("champion", 0))
    re_scored = rescored(database, tenant, watch.version, since=state.since) if watch.phase == "holdback" else ()
    observed = Observations(
        units=rated_units(database, tenant, watch, policy, at),
        assigned=(version, control),
        assigned_by_share=_assigned_by_share(database, tenant, watch),
        left_out=len(abuse),
        rescore_p_values=re_scored,
        usual_complaints=_usual_complaints(database, store, state, watch, policy),
    )
    return assess(watch, observed, policy, at=at)


def rated_units(
    database: Engine, tenant: str, watch: Watch, policy: CanaryPolicy, at: datetime
) -> tuple[FrozenUnit, ...]:
    """Load the frozen rows that a watch is judged by, in the order in which they froze."""
    store = Store(database)
    abuse = _abuse(database, tenant, watch, policy)
    rows = {
        seq: [row for row in store.rated_units(tenant, seq, window_s=policy.window_seconds) if row.unit not in abuse]
        for seq in _seqs(watch)
    }
    return frozen_units(watch, rows, frozen_before=frozen_before(policy, at))


def policy_in_force(database: Engine, state: ReleaseState, default: CanaryPolicy) -> CanaryPolicy:
    """Return the policy stated when the open canary began, or `default` where none was."""
    watch = state.watch
    if watch is not None:
        for entry in history(database, state.tenant, after_seq=watch.opened_seq - 1)[:1]:
            return stated_policy(entry.evidence.policy, default)
    return default


def _abuse(database: Engine, tenant: str, watch: Watch, policy: CanaryPolicy) -> dict[str, Reason]:
    return exclude_abuse(ratings_of(database, tenant, _seqs(watch)), policy)


def _seqs(watch: Watch) -> list[int]:
    return [watch.opened_seq, *([watch.champion_seq] if watch.champion_seq is not None else [])]


def _assigned_by_share(database: Engine, tenant: str, watch: Watch) -> tuple[AssignedCount, ...]:
    """Count the units of each share of the canary, where they were first assigned."""
    query = (
        select(interactions.c.arm, interactions.c.probability, func.count(interactions.c.unit.distinct()))
        .where(interactions.c.tenant == tenant, interactions.c.release_seq == watch.opened_seq)
        .group_by(interactions.c.arm, interactions.c.probability)
    )
    counts: dict[float, list[int]] = {}
    with database.connect() as connection:
        for arm, probability, units in connection.execute(query):
            if arm not in ("canary", "champion"):
                continue
            share = round(probability if arm == "canary" else 1.0 - probability, 9)
            row = counts.setdefault(share, [0, 0])
            row[0] += units if arm == "canary" else 0
            row[1] += units
    return tuple(AssignedCount(treated, both, share) for share, (treated, both) in sorted(counts.items()))


def _act(
    database: Engine,
    state: ReleaseState,
    watch: Watch,
    policy: CanaryPolicy,
    assessment: Assessment,
    prove: Prove | None,
) -> None:
    _alert_remarks(database, state, watch, policy, assessment)
    evidence, reason = assessment.evidence, assessment.reason
    if assessment.decision == "back":
        roll_back_from(
            database,
            state,
            actor="controller",
            reason=reason,
            evidence=evidence,
            pause_seconds=policy.pause_seconds,
            prove=prove,
        )
    elif assessment.decision == "forward":
        promote(database, state, policy=policy, reason=reason, evidence=evidence)
    elif assessment.decision == "step":
        assert assessment.next_share is not None, "a step without a share"
        step(database, state, assessment.next_share, reason=reason, evidence=evidence)
    elif assessment.decision == "settle":
        complete_holdback(database, state, reason=reason, evidence=evidence)
    elif assessment.decision == "deadline" and policy.at_deadline == "back":
        withdraw(database, state, actor="controller", reason=reason, evidence=evidence)


def _alert_remarks(
    database: Engine, state: ReleaseState, watch: Watch, policy: CanaryPolicy, assessment: Assessment
) -> None:
    """Alert about what moves no release by itself; once for each watch, of an incident once an hour."""

    def write_alert(kind: str, severity: Severity, title: str, text: str, once_per: str = "") -> None:
        alert_once(
            database,
            Alert(
                kind=kind,
                severity=severity,
                tenant=state.tenant,
                title=title,
                text=text,
                next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
                payload=assessment.model_dump(mode="json"),
                dedupe_key=f"{kind}/{state.tenant}/{watch.opened_seq}{once_per}",
            ),
        )

    if assessment.rated_more:
        write_alert(
            "rated_unequally",
            "warning",
            f"users of {watch.version} and {watch.previous} are rated unequally often",
            "A difference in thumbs may be one of who rates; compare answers of both before trusting it.",
        )
    if assessment.misassigned:
        write_alert(
            "assigned_unequally",
            "critical",
            f"users are not dealt to {watch.version} and {watch.previous} by their shares",
            "Routing is broken somewhere (a cache, a second salt, a client that retries until it likes the answer): "
            "nothing goes forward on this comparison.",
        )
    if assessment.decision == "incident":
        title = f"{watch.version} and {watch.previous} fail together"
        write_alert("incident", "critical", title, assessment.reason, f"/{now():%Y-%m-%dT%H}")
    if assessment.decision == "deadline" and policy.at_deadline == "hold":
        title = f"no verdict on {watch.version} by its deadline; its share is held"
        write_alert("deadline", "warning", title, assessment.reason)


def _usual_complaints(
    database: Engine, store: Store, state: ReleaseState, watch: Watch, policy: CanaryPolicy
) -> float | None:
    """The compared version's complaint rate before the watch, from the release under which it served alone."""
    for entry in reversed(history(database, state.tenant)):
        alone = entry.action in ("baseline", "champion") and entry.version == watch.previous
        if entry.seq < watch.opened_seq and alone:
            rows = store.rated_units(state.tenant, entry.seq, window_s=policy.window_seconds)
            rows = [row for row in rows if row.arm == "champion" and row.first_seen < watch.opened_at]
            return complaint_rate(rows) if len(rows) >= policy.incident_units else None
    return None
