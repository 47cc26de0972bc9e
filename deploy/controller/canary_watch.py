"""One look at one tenant's open watch: prolong its lease, judge the frozen rows, do what the judgement says.

Everything is read anew at every look and written by compare-and-set, so a look may be killed anywhere and repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, Engine, Integer, String, Table, delete, func, insert, select

from deploy.canary.assess import Assessment, FrozenUnit, assess, frozen_before, units_of
from deploy.canary.policy import CanaryPolicy
from deploy.canary.rating_filter import leave_out, words_of
from deploy.canary.rescore import rescored
from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import Standing, Watch, current, history
from deploy.release.lifecycle import Prove, promote, roll_back, settle, step, withdraw
from feedback.store.store import Store, interactions
from infra.alerts.outbox import Alert, Severity, enqueue
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.errors import Conflict

log = logging.getLogger(__name__)

watch_states = Table(
    "watch_states",
    metadata,
    Column("tenant", String(200), primary_key=True),
    Column("opened_seq", Integer, nullable=False),
    Column("assessment", JSON, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)


def look(
    engine: Engine,
    tenant: str,
    *,
    policy: CanaryPolicy,
    holder: str,
    at: datetime | None = None,
    prove: Prove | None = None,
) -> Assessment | None:
    """Judge the tenant's open watch and act on it; None without one, or while another controller holds its lease.

    The policy that the canary was opened with counts; `policy` only where the ledger names none.

    Args:
        prove: loads and proves the version that a rollback would go to; one that fails yields to the one before it.
    """
    before = current(engine, tenant)
    watch = before.watch
    if watch is None:
        return None
    policy = policy_of(engine, before, policy)
    if not renew(engine, canary_lease(tenant), holder, policy.lease_seconds):
        return None
    at = at or now()
    judged = judge(engine, before, watch, policy, at)
    _remember(engine, tenant, watch, judged, at)
    try:
        _act(engine, before, watch, policy, judged, prove)
    except Conflict as lost:
        log.info("%s", lost)  # somebody moved first; the next look decides on what stands then
    return judged


def judge(engine: Engine, standing: Standing, watch: Watch, policy: CanaryPolicy, at: datetime) -> Assessment:
    """The judgement of a watch at a time, from the stored rows alone."""
    store, tenant = Store(engine), standing.tenant
    abuse = leave_out(words_of(engine, tenant, _seqs(watch)), policy)
    version = control = 0
    for seq in _seqs(watch):
        counts = store.assigned_units(tenant, seq)
        promoted = seq == watch.champion_seq
        version += counts.get("champion" if promoted else "canary", 0)
        control += counts.get("holdback", 0) + (0 if promoted else counts.get("champion", 0))
    return assess(
        watch,
        rated_units(engine, tenant, watch, policy, at),
        policy,
        at=at,
        assigned=(version, control),
        dealt=_dealt(engine, tenant, watch),
        left_out=len(abuse),
        rescored=rescored(engine, tenant, watch.version, since=standing.since) if watch.phase == "holdback" else (),
        usual_complaints=_usual_complaints(engine, store, standing, watch, policy),
    )


def rated_units(
    engine: Engine, tenant: str, watch: Watch, policy: CanaryPolicy, at: datetime
) -> tuple[FrozenUnit, ...]:
    """The frozen rows that a watch is judged by, in the order in which they froze."""
    store = Store(engine)
    abuse = leave_out(words_of(engine, tenant, _seqs(watch)), policy)
    rows = {
        seq: [row for row in store.rated_units(tenant, seq, window_s=policy.window_seconds) if row.unit not in abuse]
        for seq in _seqs(watch)
    }
    return units_of(watch, rows, frozen_before=frozen_before(policy, at))


def _seqs(watch: Watch) -> list[int]:
    return [watch.opened_seq, *([watch.champion_seq] if watch.champion_seq is not None else [])]


def _dealt(engine: Engine, tenant: str, watch: Watch) -> list[tuple[int, int, float]]:
    """(units of the version, units of both arms, share) for each share of the canary, counted where first dealt."""
    query = (
        select(interactions.c.arm, interactions.c.probability, func.count(interactions.c.unit.distinct()))
        .where(interactions.c.tenant == tenant, interactions.c.release_seq == watch.opened_seq)
        .group_by(interactions.c.arm, interactions.c.probability)
    )
    counts: dict[float, list[int]] = {}
    with engine.connect() as connection:
        for arm, probability, units in connection.execute(query):
            if arm not in ("canary", "champion"):
                continue
            share = round(probability if arm == "canary" else 1.0 - probability, 9)
            row = counts.setdefault(share, [0, 0])
            row[0] += units if arm == "canary" else 0
            row[1] += units
    return [(treated, both, share) for share, (treated, both) in sorted(counts.items())]


def policy_of(engine: Engine, standing: Standing, default: CanaryPolicy) -> CanaryPolicy:
    """The policy stated when the open canary began: what is promised is fixed before the first user is seen."""
    watch = standing.watch
    if watch is not None:
        for line in history(engine, standing.tenant, after_seq=watch.opened_seq - 1)[:1]:
            stated = line.evidence.get("policy")
            if stated is not None:
                return CanaryPolicy.model_validate(stated, extra="ignore")
    return default


def last_assessment(engine: Engine, tenant: str) -> tuple[Assessment, datetime] | None:
    """The controller's latest judgement and its time, for `ratchet status`."""
    with engine.connect() as connection:
        row = connection.execute(select(watch_states).where(watch_states.c.tenant == tenant)).first()
    return (Assessment.model_validate(row.assessment), row.at) if row else None


def watch_quality(engine: Engine, tenant: str, policy: CanaryPolicy, *, at: datetime | None = None) -> bool:
    """Alert when the latest users of a champion that nobody is compared with complain far more than its earlier ones.

    Without a concurrent comparison a change of mood cannot be told from a change of quality, so nothing goes back.
    """
    standing = current(engine, tenant)
    if standing.watch is not None or standing.champion is None:
        return False
    at, size = at or now(), policy.incident_units
    rows = Store(engine).rated_units(tenant, standing.champion_seq, window_s=policy.window_seconds)
    rows = sorted((row for row in rows if row.first_seen <= frozen_before(policy, at)), key=lambda row: row.first_seen)
    if len(rows) < 3 * size:
        return False
    latest, earlier = _complaints(rows[-size:]), _complaints(rows[:-size])
    if latest < earlier + policy.incident_rise:
        return False
    return _tell(
        engine,
        "quality_drift",
        "warning",
        standing,
        f"complaints about {standing.champion} rise",
        f"{latest:.0%} of the latest {size} rated users complain, {earlier:.0%} did before. No other version answers "
        "beside it, so this may be the users' mood: nothing is taken back.",
        f"{standing.champion_seq}/{at:%Y-%m-%d}",
        {"latest": latest, "earlier": earlier},
    )


def _act(
    engine: Engine, before: Standing, watch: Watch, policy: CanaryPolicy, judged: Assessment, prove: Prove | None
) -> None:
    facts, reason = judged.facts(), judged.reason
    if judged.rated_more:
        _tell(
            engine,
            "rated_unequally",
            "warning",
            before,
            f"users of {watch.version} and {watch.previous} are rated unequally often",
            "A difference in thumbs may be one of who rates; compare answers of both before trusting it.",
            f"{watch.opened_seq}",
            facts,
        )
    if judged.misassigned:
        _tell(
            engine,
            "assigned_unequally",
            "critical",
            before,
            f"users are not dealt to {watch.version} and {watch.previous} by their shares",
            "Routing is broken somewhere (a cache, a second salt, a client that retries until it likes the answer): "
            "nothing goes forward on this comparison.",
            f"{watch.opened_seq}",
            facts,
        )
    if judged.decision == "back":
        roll_back(
            engine,
            before.tenant,
            actor="controller",
            reason=reason,
            evidence=facts,
            pause_seconds=policy.pause_seconds,
            prove=prove,
            decided_on=before,
        )
    elif judged.decision == "forward":
        promote(engine, before, policy=policy, reason=reason, evidence=facts)
    elif judged.decision == "step":
        assert judged.next_share is not None, "a step without a share"
        step(engine, before, judged.next_share, reason=reason, evidence=facts)
    elif judged.decision == "settle":
        settle(engine, before, reason=reason, evidence=facts)
    elif judged.decision == "incident":
        title = f"{watch.version} and {watch.previous} fail together"
        _tell(engine, "incident", "critical", before, title, reason, f"{watch.opened_seq}/{now():%Y-%m-%dT%H}", facts)
    elif judged.decision == "deadline" and policy.at_deadline == "back":
        withdraw(engine, before, actor="controller", reason=reason, evidence=facts)
    elif judged.decision == "deadline":
        title = f"no verdict on {watch.version} by its deadline; its share is held"
        _tell(engine, "deadline", "warning", before, title, reason, f"{watch.opened_seq}", facts)


def _usual_complaints(
    engine: Engine, store: Store, standing: Standing, watch: Watch, policy: CanaryPolicy
) -> float | None:
    """The compared version's complaint rate before the watch, from the release under which it served alone."""
    for line in reversed(history(engine, standing.tenant)):
        alone = line.action in ("baseline", "champion") and line.version == watch.previous
        if line.seq < watch.opened_seq and alone:
            rows = store.rated_units(standing.tenant, line.seq, window_s=policy.window_seconds)
            rows = [row for row in rows if row.arm == "champion" and row.first_seen < watch.opened_at]
            return _complaints(rows) if len(rows) >= policy.incident_units else None
    return None


def _complaints(rows: Sequence[Any]) -> float:
    return float(sum(row.score < 0.5 for row in rows) / len(rows))


def _tell(
    engine: Engine,
    kind: str,
    severity: Severity,
    standing: Standing,
    title: str,
    text: str,
    once_per: str,
    payload: dict[str, Any],
) -> bool:
    alert = Alert(
        kind=kind,
        severity=severity,
        tenant=standing.tenant,
        title=title,
        text=text,
        next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
        payload=payload,
        dedupe_key=f"{kind}/{standing.tenant}/{once_per}",
    )
    with engine.connect() as connection:
        from infra.alerts.outbox import outbox

        if connection.execute(select(outbox.c.alert_id).where(outbox.c.dedupe_key == alert.dedupe_key)).first():
            return False  # without taking the write lock every second
    with begin_write(engine) as connection:
        return enqueue(connection, alert)


def _remember(engine: Engine, tenant: str, watch: Watch, judged: Assessment, at: datetime) -> None:
    facts = judged.facts()
    with engine.connect() as connection:
        row = connection.execute(select(watch_states).where(watch_states.c.tenant == tenant)).first()
    if row is not None and row.opened_seq == watch.opened_seq and row.assessment == facts:
        return
    with begin_write(engine) as connection:
        connection.execute(delete(watch_states).where(watch_states.c.tenant == tenant))
        connection.execute(
            insert(watch_states).values(tenant=tenant, opened_seq=watch.opened_seq, assessment=facts, at=at)
        )
