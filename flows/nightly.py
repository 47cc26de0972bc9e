"""Run a night, top to bottom: ingest, snapshot, plan, train each recipe, evaluate, gate, release, notify.

    ratchet run nightly                      on the running stack
    flows.nightly.nightly                    the module entrypoint of the deployment

Killed at any moment, the next run resumes the same night (see flows/night/record.py): every step is recorded once it is
finished, and safe to repeat when it was not.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from deploy.controller.liveness import deliver_if_silent
from deploy.nights.request import NightRequest
from deploy.nights.steps import APPROVAL, DRIFT, FINGERPRINT, INGEST, PLAN, SNAPSHOT, VERDICT
from evaluation.scorecard import read_scorecard
from feedback.snapshots.snapshot import load_snapshot
from flows.config.job_files import controller_job
from flows.intake.run import ingest_all
from flows.night.deferred_release import release_deferred_winner
from flows.night.drift_check import check_drift
from flows.night.dry_run import DryRun, plan_dry_run
from flows.night.ending import NightSummary, SkippedNight, alert_failure, skip_night, summary
from flows.night.evaluation_items import write_evaluation_items
from flows.night.missed_runs import why_skipped
from flows.night.no_verdict import end_without_verdict
from flows.night.record import Night, open_night
from flows.night.should_train import fingerprint_of, why_not_train
from flows.night.steps import (
    choose_snapshot,
    gate_power_of,
    judge_night,
    night_reference,
    plan_training,
    take_checkpoint,
    train_one,
    train_twin,
    why_not_approved,
    why_not_trained,
)
from flows.night.tracking import links_of, log_night, log_verdict, open_tracker, system_metrics_logged
from flows.planning.gate_power import units_of
from flows.serving.prefect_runs import close_dead_runs
from flows.stack.open import open_config
from infra.cleanup import sweep
from infra.database.open import open_database
from tasks import release, train
from tasks.reporting import prefect_artifacts


@flow(name="nightly", validate_parameters=True)
def nightly(
    request: NightRequest = NightRequest(),  # noqa: B008
    config: str = "ratchet.yaml",
) -> NightSummary | SkippedNight | DryRun:
    """Retrain on what users said, and let the best challenger replace the live model only when it measurably wins.

    Args:
        request: what this night is asked for; left as it is, the config decides.
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = open_config(Path(config))
    reason = why_skipped(settings, request)
    if reason is not None:
        return skip_night(reason)
    sweep(settings.places)
    with open_night(settings, request) as night:
        if request.dry_run:
            return plan_dry_run(night)
        close_dead_runs(night.record.flow_runs)
        night.note_flow_run(str(flow_run.id))
        try:
            run_night(night)
        except Exception as error:
            alert_failure(night, error)
            raise
        return summary(night)


def run_night(night: Night) -> None:
    """Run all steps. Each is a line here; what it does stands in flows/night/steps.py and tasks/."""
    config, places, tenant = night.config, night.config.places, night.tenant
    base = train.find_base(config.base_model, places)
    standing = release.find_champion(places, tenant, base.version, config.tenants[0])

    report = night.once(INGEST, lambda: ingest_all(config, base))
    prefect_artifacts.show_intake(report)
    name = night.once(SNAPSHOT, lambda: choose_snapshot(night))
    fingerprint = night.once(FINGERPRINT, lambda: fingerprint_of(night, name, base))
    drift = night.once(DRIFT, lambda: check_drift(night, name, standing))
    prefect_artifacts.show_drift(drift)
    reason = why_not_train(night, name, fingerprint, standing.champion, drifted=drift.drifted)
    if name is None or reason is not None:
        deferred = release_deferred_winner(night, base, standing)
        end_without_verdict(night, base, standing, report, drift, name, deferred or str(reason))
        return
    snapshot = load_snapshot(places.snapshots_dir / name)
    questions = write_evaluation_items(snapshot, night.folder)
    plan = night.once(PLAN, lambda: plan_training(night, snapshot.counts["train"], base))
    prefect_artifacts.show_plan(plan, gate_power_of(night, plan, units_of(snapshot)))
    if not (plan.recipes or night.request.checkpoints) or not questions:
        end_without_verdict(night, base, standing, report, drift, name, why_not_trained(plan, questions))
        return

    tracker = open_tracker(night)
    log_night(tracker, night, report, snapshot, drift)
    with system_metrics_logged(tracker, night):
        challengers = tuple(train_one(night, recipe, base, snapshot, tracker) for recipe in plan.recipes)
        challengers += tuple(take_checkpoint(night, checkpoint, base) for checkpoint in night.request.checkpoints)
        twin = train_twin(night, plan, base, snapshot, tracker)
        verdict = night.once(VERDICT, lambda: judge_night(night, base, standing, challengers, twin, snapshot, tracker))
    scorecard = read_scorecard(places.evaluations_dir / night.night_id)
    prefect_artifacts.show_scorecard(scorecard)

    refusal = night.once(APPROVAL, lambda: why_not_approved(night, verdict, tracker))
    entry = release.release(
        verdict,
        night_id=night.night_id,
        tenant=tenant,
        challengers=challengers,
        refusal=refusal,
        places=places,
        prover=controller_job(config, base),
        reference=night_reference(night, snapshot, tracker),
    )
    prefect_artifacts.show_verdict(verdict, entry)
    prefect_artifacts.show_links(links_of(tracker, night, report, judged=True))
    log_verdict(tracker, night, verdict, entry)
    deliver_if_silent(open_database(places), config.alerts)
    night.close("done", f"{verdict.decision}: {entry.action} {entry.version}. {entry.reason}")
