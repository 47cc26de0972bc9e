"""From a verdict to the ledger: a canary opened, or the night held. Once per night, whatever is killed when."""

from __future__ import annotations

import logging
import time

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.controller.job import ControllerJob
from deploy.controller.proving import make_prover
from deploy.controller.rounds import releases_of
from deploy.ledger.evidence import Evidence, NightReference, VerdictSummary
from deploy.ledger.ledger import Entry, ReleaseState, current
from deploy.nights.challenger import Challenger
from deploy.release.lifecycle import hold, start
from deploy.release.rollback import roll_back
from deploy.release.shared_champion import inherit
from deploy.versions.versions import publish_version
from evaluation.gate.verdict import Verdict
from infra.alerts.outbox import Severity
from infra.database.open import open_database
from infra.errors import RatchetError, Unavailable
from infra.settings import Places

log = logging.getLogger(__name__)


@task(name="champion", cache_policy=NO_CACHE)
def find_champion(places: Places, tenant: str, base_version: str, shared: str) -> ReleaseState:
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
    refusal: str | None,
    places: Places,
    prover: ControllerJob,
    reference: NightReference,
) -> Entry:
    """Open the winner's canary, or write why the night is held. ``refusal`` is a person's (or a time-out's) no."""
    if verdict.winner is None or refusal is not None:
        return _held(verdict, refusal, night_id, tenant, places, reference)
    _publish(verdict.winner, challengers, places, prover)
    _wait_for_engine(prover)
    releases = releases_of(open_database(places), tenant, prover, make_prover(prover))
    return releases.open(verdict.winner, actor="night", gate=VerdictSummary.of(verdict, reference), night_id=night_id)


def _held(
    verdict: Verdict, refusal: str | None, night_id: str, tenant: str, places: Places, reference: NightReference
) -> Entry:
    about = verdict.winner or best_challenger(verdict) or verdict.champion
    reason = refusal or f"{verdict.decision}: {' '.join(verdict.reasons)}"
    regressed = any(c.harm_p_value is not None and c.harm_p_value < 0.05 for c in verdict.challengers)
    severity: Severity = "warning" if regressed or verdict.decision == "reject" else "info"
    return hold(
        open_database(places),
        tenant,
        about,
        reason=reason[:4000],
        night_id=night_id,
        evidence=Evidence.model_validate(VerdictSummary.of(verdict, reference).model_dump(mode="json")),
        severity=severity,
    )


def best_challenger(verdict: Verdict) -> str | None:
    """The challenger with the largest estimated gain, promoted or not."""
    known = [c for c in verdict.challengers if c.gain is not None]
    return max(known, key=lambda c: (c.gain or 0.0, c.version)).version if known else None


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
