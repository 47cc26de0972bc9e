"""From a verdict to the ledger: a canary opened, or the night held. Once per night, whatever is killed when."""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.canary.policy import CanaryPolicy
from deploy.controller.run import ControllerJob, make_prover
from deploy.ledger.ledger import Entry, RefusedTransition, Standing, current, history
from deploy.ledger.state import NotNow
from deploy.release.lifecycle import hold, open_release, roll_back, start
from deploy.release.preconditions import may_open, still_waits
from deploy.release.shared_champion import inherit
from deploy.versions.versions import publish_version
from evaluation.gate.verdict import Verdict
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import RatchetError, Unavailable
from infra.settings import Places
from tasks.train import Challenger

log = logging.getLogger(__name__)


@task(name="champion", cache_policy=NO_CACHE)
def find_champion(places: Places, tenant: str, base_version: str, shared: str) -> Standing:
    """What is live. Where nothing ever was that is the champion of tenant ``shared``, or else the untouched base."""
    engine = open_database(places)
    start(engine, tenant, base_version, actor="night")
    inherit(engine, tenant, shared)
    return current(engine, tenant)


@task(name="release", cache_policy=NO_CACHE)
def release(
    verdict: Verdict,
    *,
    night_id: str,
    tenant: str,
    challengers: tuple[Challenger, ...],
    refusal: str,
    places: Places,
    policy: CanaryPolicy,
    prover: ControllerJob,
    evidence: dict[str, Any],
) -> Entry:
    """Open the winner's canary, or write why the night is held. ``refusal`` is a person's (or a time-out's) no."""
    if verdict.winner is None or refusal:
        return _held(verdict, refusal, night_id, tenant, places, evidence)
    _publish(verdict.winner, challengers, places, prover)
    _wait_for_engine(prover)
    return open_release(
        open_database(places),
        tenant,
        verdict.winner,
        versions_dir=places.versions_dir,
        policy=policy,
        prove=make_prover(prover),
        actor="night",
        gate={**_gist(verdict), **evidence},
        night_id=night_id,
        shadow_only=prover.shadow_only,
        shared=prover.tenants[0],
    )


def why_waits(
    verdict: Verdict, tenant: str, places: Places, *, since: datetime, shadow_only: bool, held: bool
) -> str | None:
    """Why an earlier night's winner may still not be released; "" when it may by now, None when it waits no longer.

    Args:
        since: when that night began: what the ledger says of the same weights from before says nothing of its verdict.
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.
        held: whether that night ended, and so wrote a line.
    """
    engine, version = open_database(places), str(verdict.winner)
    lines = [line for line in history(engine, tenant) if line.at >= since]
    if not still_waits(lines, version, held=held):
        return None
    gate = {"gate": _gist(verdict)}
    line = Entry(tenant=tenant, action="gated", version=version, actor="night", reason="it waited", evidence=gate)
    try:
        may_open(current(engine, tenant), line, at=now(), shadow_only=shadow_only)
    except NotNow as cause:
        return str(cause)
    except RefusedTransition:
        return None
    return ""


def _held(
    verdict: Verdict, refusal: str, night_id: str, tenant: str, places: Places, evidence: dict[str, Any]
) -> Entry:
    about = verdict.winner or best_challenger(verdict) or verdict.champion
    reason = refusal or f"{verdict.decision}: {' '.join(verdict.reasons)}"
    regressed = any(c.harm_p_value is not None and c.harm_p_value < 0.05 for c in verdict.challengers)
    severity: Any = "warning" if regressed or verdict.decision == "reject" else "info"
    gist = {**_gist(verdict), **evidence}
    return hold(
        open_database(places), tenant, about, reason=reason[:4000], night_id=night_id, evidence=gist, severity=severity
    )


def best_challenger(verdict: Verdict) -> str | None:
    """The challenger with the largest estimated gain, promoted or not."""
    known = [c for c in verdict.challengers if c.gain is not None]
    return max(known, key=lambda c: (c.gain or 0.0, c.version)).version if known else None


def _gist(verdict: Verdict) -> dict[str, Any]:
    """What the ledger keeps of a verdict; the whole of it stands in the night's record."""
    winner = next((c for c in verdict.challengers if c.version == verdict.winner), None)
    return {
        "decision": verdict.decision,
        "reason": verdict.reasons[0] if verdict.reasons else verdict.decision,
        "champion": verdict.champion,
        "primary": verdict.primary,
        "alpha": verdict.alpha,
        "scorecard": verdict.scorecard_digest,
        "policy": verdict.policy_digest,
        "gain": winner.gain if winner else None,
    }


def _publish(version: str, challengers: tuple[Challenger, ...], places: Places, prover: ControllerJob) -> None:
    for challenger in challengers:
        for stage in challenger.stages:
            if stage.version == version:
                publish_version(places.stages_dir / stage.key, places.versions_dir, base=prover.base_path)
                return
    raise RatchetError(f"the verdict's winner {version} is no stage of this night; its record was changed by hand")


def _wait_for_engine(job: ControllerJob, seconds: float = 120.0) -> None:
    """An engine that is just being restarted must not cost the night its release."""
    import httpx

    deadline = time.monotonic() + seconds
    while job.engine_url is not None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{job.engine_url}/health", timeout=5.0, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1.0)
    raise Unavailable(
        f"the engine at {job.engine_url} does not answer; start it (`ratchet up`), the night then goes on"
    )


@task(name="roll back", cache_policy=NO_CACHE)
def take_back(
    places: Places,
    tenant: str,
    *,
    to: str | None,
    actor: str,
    reason: str,
    pause_seconds: float | None,
    prover: ControllerJob,
) -> Entry:
    """One ledger line: another version is live, the bad one is barred. A target that fails its probe yields."""
    return roll_back(
        open_database(places),
        tenant,
        to=to,
        actor=actor,
        reason=reason,
        pause_seconds=pause_seconds,
        prove=make_prover(prover),
    )
