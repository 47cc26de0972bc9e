"""The night, top to bottom: ingest, snapshot, plan, train each recipe, evaluate, gate, release, notify.

    ratchet run nightly                      on the running stack
    flows.nightly.nightly                    the module entrypoint of the deployment

Killed at any moment, the next run takes the same night up again (see flows/night/record.py): every step is remembered
once it is finished, and safe to repeat when it was not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from deploy.controller.liveness import deliver_if_silent
from evaluation.gate.verdict import Verdict
from evaluation.scorecard import read_scorecard
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from feedback.snapshots.snapshot import load_snapshot
from flows.config.job_files import controller_job
from flows.config.night_request import NightRequest
from flows.intake.run import take_all_in
from flows.night.deferred_release import release_waiting
from flows.night.drift_check import look_for_drift
from flows.night.dry_run import say_plan
from flows.night.ending import end_unneeded, summary, tell_failure
from flows.night.missed_runs import caught_up
from flows.night.no_verdict import end_quietly
from flows.night.record import Night, open_night
from flows.night.should_train import asked_of, nothing_new
from flows.night.steps import (
    approve,
    evidence,
    measure,
    plan_of,
    sight_of,
    snapshot_of,
    take_checkpoint,
    train_one,
    train_twin,
    why_not_trained,
)
from flows.night.tracking import log_night, log_verdict, machine_watched, open_tracking, pages
from flows.planning.gate_power import units_of
from flows.serving.prefect_runs import close_dead_runs
from flows.stack.open import opened_config
from infra.cleanup import sweep
from infra.database.open import open_database
from tasks import intake, release, train
from tasks.reporting import prefect_artifacts
from training.recipes.plan import Plan


@flow(name="nightly", validate_parameters=True)
def nightly(request: NightRequest = NightRequest(), config: str = "ratchet.yaml") -> dict[str, Any]:  # noqa: B008
    """Retrain on what users said, and let the best challenger replace the live model only when it measurably wins.

    Args:
        request: what this night is asked for; left as it is, the config decides.
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = opened_config(Path(config))
    missed = caught_up(settings, request)
    if missed is not None:
        return end_unneeded(missed)
    sweep(settings.places)
    with open_night(settings, request) as night:
        if request.dry_run:
            return say_plan(night)
        close_dead_runs(night.file.flow_runs)
        night.note_flow_run(str(flow_run.id))
        try:
            run_night(night)
        except Exception as error:
            tell_failure(night, error)
            raise
        return summary(night)


def run_night(night: Night) -> None:
    """All steps. Each is a line here; what it does stands in flows/night/steps.py and tasks/."""
    config, places, tenant = night.config, night.config.places, night.tenant
    base = train.find_base(config.base_model, places)
    standing = release.find_champion(places, tenant, base.version, config.tenants[0])

    report = night.once("ingest", IngestReport, lambda: take_all_in(config, base))
    prefect_artifacts.show_intake(report)
    name = night.once("snapshot", str, lambda: snapshot_of(night))
    asked = night.once("asked", str, lambda: asked_of(night, name, base))
    drift = night.once("drift", DriftReport, lambda: look_for_drift(night, name, standing))
    prefect_artifacts.show_drift(drift)
    nothing = nothing_new(night, name, asked, standing.champion, drifted=drift.drifted)
    if nothing is not None:
        waited = release_waiting(night, base, standing)
        end_quietly(night, base, standing, report, drift, name, waited or nothing)
        return
    snapshot = load_snapshot(places.snapshots_dir / name)
    questions = intake.write_questions(snapshot, night.folder)
    plan = night.once("plan", Plan, lambda: plan_of(night, snapshot.counts["train"], base))
    prefect_artifacts.show_plan(plan, sight_of(night, plan, units_of(snapshot)))
    if not (plan.recipes or night.request.checkpoints) or not questions:
        end_quietly(night, base, standing, report, drift, name, why_not_trained(plan, questions))
        return

    tracker = open_tracking(night)
    log_night(tracker, night, report, snapshot, drift)
    with machine_watched(tracker, night):
        challengers = tuple(train_one(night, recipe, base, snapshot, tracker) for recipe in plan.recipes)
        challengers += tuple(take_checkpoint(night, named, base) for named in night.request.checkpoints)
        twin = train_twin(night, plan, base, snapshot, tracker)
        verdict = night.once(
            "verdict", Verdict, lambda: measure(night, base, standing, challengers, twin, snapshot, tracker)
        )
    scorecard = read_scorecard(places.evaluations_dir / night.night_id)
    prefect_artifacts.show_scorecard(scorecard)

    refusal = night.once("approval", str, lambda: approve(night, verdict, tracker))
    entry = release.release(
        verdict,
        night_id=night.night_id,
        tenant=tenant,
        challengers=challengers,
        refusal=refusal,
        places=places,
        policy=config.canary,
        prover=controller_job(config, base),
        evidence=evidence(night, snapshot, tracker),
    )
    prefect_artifacts.show_verdict(verdict, entry)
    prefect_artifacts.show_links(pages(tracker, night, report, judged=True))
    log_verdict(tracker, night, verdict, entry)
    deliver_if_silent(open_database(places), config.alerts)
    night.close("done", f"{verdict.decision}: {entry.action} {entry.version}. {entry.reason}")
