"""Release an earlier night's winner that was blocked temporarily (another canary, a pause, the engine down).

A night with nothing new does it. The verdict stands while the champion that it was compared with is live, so nothing is
trained or judged again: the gate would even refuse, because that verdict used the items. While the cause stands this
costs seconds a night.
"""

from __future__ import annotations

from deploy.controller.liveness import deliver_if_silent
from deploy.ledger.evidence import NightReference, VerdictSummary
from deploy.ledger.ledger import Entry, ReleaseState
from deploy.nights.steps import FINGERPRINT, SNAPSHOT, VERDICT
from deploy.release.lifecycle import night_entry
from deploy.release.preconditions import deferred_release
from feedback.erasure.snapshots import TOMBSTONE, erased_rows
from flows.config.job_files import controller_job
from flows.night.record import Night
from flows.night.should_train import fingerprint_of, last_night_with_verdict
from flows.night.tracking import open_tracker
from infra.database.open import open_database
from infra.settings import Places
from tasks import release
from tasks.reporting import prefect_artifacts
from training.base_model import Base


def release_deferred_winner(night: Night, base: Base, standing: ReleaseState) -> str | None:
    """Say what became tonight of the last verdict's winner, where that was not released yet; None where none waits."""
    places, prover = night.places, controller_job(night.config, base)
    written = night_entry(open_database(places), night.tenant, night.night_id)
    if written is not None:  # killed after this night's entry was written
        return _outcome(written)
    earlier = last_night_with_verdict(night)
    if earlier is None:
        return None
    snapshot = earlier.result(SNAPSHOT)
    # All as then but for what came in since, which is too little for a night.
    same = earlier.result(FINGERPRINT) == fingerprint_of(night, snapshot, base)
    verdict = earlier.result(VERDICT) if same else None
    if verdict is None or verdict.winner is None or verdict.champion != standing.champion:
        return None
    if _erased_since(places, snapshot, verdict.winner):
        return None
    deferred = deferred_release(
        open_database(places),
        night.tenant,
        verdict.winner,
        VerdictSummary.of(verdict),
        since=earlier.started_at,
        shadow_only=prover.shadow_only,
        held=earlier.state == "done",
    )
    if deferred is None:
        return None
    if deferred.cause is not None:
        return f"night {earlier.night_id}'s winner {verdict.winner} waits: {deferred.cause}"
    judged = Night(places.nights_dir / earlier.night_id, earlier, night.config)
    entry = release.release(
        verdict,
        night_id=night.night_id,
        tenant=night.tenant,
        challengers=earlier.challengers(),
        refusal=None,
        places=places,
        prover=prover,
        reference=NightReference(
            snapshot=earlier.stored(SNAPSHOT),
            mlflow_run=open_tracker(judged).run_id(judged.run_key),
            note=earlier.request.note,
            judged_in=earlier.night_id,
        ),
    )
    prefect_artifacts.show_verdict(verdict, entry)
    deliver_if_silent(open_database(places), night.config.alerts)
    return _outcome(entry)


def _erased_since(places: Places, snapshot: str | None, winner: str) -> bool:
    """Whether somebody was erased whose rows the winner may have learned from."""
    rows = erased_rows(places.snapshots_dir / str(snapshot))
    return bool(rows) or (places.versions_dir / winner / TOMBSTONE).exists()


def _outcome(entry: Entry) -> str:
    return f"a winner that waited: {entry.action} {entry.version}. {entry.reason}"
