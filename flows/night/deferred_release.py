"""A winner that its own night could not release, for a cause that passes: a night with nothing new releases it.

The cause is another watch, a pause, or that the night failed (the engine was away). Its verdict stands while the
champion that it was compared with is live, so nothing is trained or judged again: the gate would even refuse, because
that verdict used the items. While the cause stands this costs seconds a night.
"""

from __future__ import annotations

from deploy.controller.liveness import deliver_if_silent
from deploy.ledger.ledger import Entry, Standing
from deploy.release.lifecycle import night_line
from evaluation.gate.verdict import Verdict
from feedback.erasure import TOMBSTONE, erased_rows
from flows.config.job_files import controller_job
from flows.night.record import Night, NightFile
from flows.night.should_train import asked_of, last_judged
from flows.night.steps import night_key
from flows.night.tracking import open_tracking
from infra.database.open import open_database
from tasks import release
from tasks.reporting import prefect_artifacts
from tasks.train import Challenger
from training.base_model import Base


def release_waiting(night: Night, base: Base, standing: Standing) -> str | None:
    """What became tonight of the last verdict's winner, where that was not released yet; None where none waits."""
    places, prover = night.config.places, controller_job(night.config, base)
    written = night_line(open_database(places), night.tenant, night.night_id)
    if written is not None:  # killed after this night's line was written
        return _said(written)
    earlier = last_judged(night)
    if earlier is None:
        return None
    # All as then but for what came in since, which is too little for a night.
    same = earlier.steps.get("asked") == asked_of(night, str(earlier.steps.get("snapshot", "")), base)
    verdict = Verdict.model_validate(earlier.steps["verdict"]) if same else None
    if verdict is None or verdict.winner is None or verdict.champion != standing.champion:
        return None
    if _forgotten_since(night, earlier, verdict.winner):
        return None
    cause = release.why_waits(
        verdict,
        night.tenant,
        places,
        since=earlier.started_at,
        shadow_only=prover.shadow_only,
        held=earlier.state == "done",
    )
    if cause is None:
        return None
    if cause:
        return f"night {earlier.night_id}'s winner {verdict.winner} waits: {cause}"
    judged = Night(places.nights_dir / earlier.night_id, earlier, night.config)
    made = [value for name, value in earlier.steps.items() if name.startswith(("train ", "checkpoint "))]
    entry = release.release(
        verdict,
        night_id=night.night_id,
        tenant=night.tenant,
        challengers=tuple(Challenger.model_validate(one) for one in made),
        refusal="",
        places=places,
        policy=night.config.canary,
        prover=prover,
        evidence={
            "snapshot": earlier.steps.get("snapshot"),
            "mlflow_run": open_tracking(judged).run_id(night_key(judged)),
            "note": earlier.request.note,
            "judged_in": earlier.night_id,
        },
    )
    prefect_artifacts.show_verdict(verdict, entry)
    deliver_if_silent(open_database(places), night.config.alerts)
    return _said(entry)


def _forgotten_since(night: Night, earlier: NightFile, winner: str) -> bool:
    """Whether somebody was forgotten whose rows the winner may have learned from."""
    places = night.config.places
    of_snapshot = erased_rows(places.snapshots_dir / str(earlier.steps["snapshot"]))
    return bool(of_snapshot) or (places.versions_dir / winner / TOMBSTONE).exists()


def _said(entry: Entry) -> str:
    return f"a winner that waited: {entry.action} {entry.version}. {entry.reason}"
