"""Release a night's winner or hold the night, and roll back, as tasks. Once per night, whatever is killed when."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.controller.job import ControllerJob
from deploy.controller.proving import make_prover
from deploy.controller.rounds import releases_of
from deploy.engines.readiness import wait_for_engine
from deploy.ledger.evidence import NightReference, VerdictSummary
from deploy.ledger.ledger import Entry, ReleaseState, current
from deploy.nights.challenger import Challenger
from deploy.release.lifecycle import start
from deploy.release.night_outcome import hold_night, publish_winner
from deploy.release.rollback import roll_back
from deploy.release.shared_champion import inherit
from evaluation.gate.verdict import Verdict
from infra.database.open import open_database
from infra.settings import Places


@task(name="champion", cache_policy=NO_CACHE)
def find_champion(places: Places, tenant: str, base_version: str, shared: str) -> ReleaseState:
    """Find what is live; where nothing ever was, the champion of tenant ``shared``, or else the untouched base."""
    database = open_database(places)
    start(database, tenant, base_version, actor="night")
    inherit(database, tenant, shared)
    return current(database, tenant)


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
    database = open_database(places)
    if verdict.winner is None or refusal is not None:
        return hold_night(database, tenant, verdict, refusal=refusal, night_id=night_id, reference=reference)
    publish_winner(verdict.winner, challengers, places, prover.base_path)
    wait_for_engine(prover.engine_url)
    releases = releases_of(database, tenant, prover, make_prover(prover))
    return releases.open(verdict.winner, actor="night", gate=VerdictSummary.of(verdict, reference), night_id=night_id)


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
    """Roll back: another version is live, the bad one is barred. A target that fails its probe yields."""
    return roll_back(
        open_database(places),
        tenant,
        to=to,
        actor=actor,
        reason=reason,
        pause_seconds=pause_seconds,
        prove=make_prover(prover),
    )
