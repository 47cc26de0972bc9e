"""Evaluate challengers and decide their verdict, as tasks: all versions on the same items, then the gate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.canary import champion_rescore
from deploy.canary.policy import CanaryPolicy
from deploy.ledger.ledger import ReleaseState
from evaluation.gate.decide import decide
from evaluation.gate.policy import GatePolicy
from evaluation.gate.verdict import Verdict
from evaluation.job.config import EvaluationJob
from evaluation.report.mlflow_log import log_scorecard
from evaluation.report.report import publish_report
from evaluation.run.launch import launch_evaluation
from evaluation.run.noise_floors import record_floors
from evaluation.scorecard import Scorecard, read_scorecard
from feedback.snapshots.gate_items import mark_used
from infra.database.open import open_database
from infra.settings import Places
from infra.telemetry.mlflow_tracker import Tracker
from tasks.reporting.progress_bar import ProgressBar

log = logging.getLogger(__name__)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(
    job: EvaluationJob, *, tracker: Tracker, night_key: str, recipes: Mapping[str, str], places: Places
) -> Scorecard:
    """Have champion, challengers and base answer the same items; what was finished before a kill is not asked again."""
    launch_evaluation(job, ProgressBar("evaluation").show)
    scorecard = read_scorecard(job.output_dir)
    record_floors(open_database(places), scorecard)
    log_scorecard(tracker, night_key, scorecard, job.output_dir, recipes)
    return scorecard


@task(name="gate", cache_policy=NO_CACHE)
def judge(scorecard: Scorecard, policy: GatePolicy) -> Verdict:
    """Decide: promote, reject, or inconclusive."""
    verdict = decide(scorecard, policy)
    for reason in verdict.reasons:
        log.info("%s: %s", verdict.decision, reason)
    return verdict


@task(name="retire used questions", cache_policy=NO_CACHE)
def count_uses(scorecard: Scorecard, places: Places, tenant: str) -> None:
    """Note that this night's verdict used its gate items, whatever becomes of the night. Again changes nothing.

    Those that were set aside count as used, too: they would be asked of nobody tomorrow either.
    """
    items = [item.item_id for item in scorecard.gate.items] + [item.item_id for item in scorecard.set_aside]
    mark_used(places.snapshots_dir, tenant, items, scorecard.night_id)


@task(name="scorecard page", cache_policy=NO_CACHE)
def publish(folder: Path, verdict: Verdict, *, tracker: Tracker, night_key: str) -> None:
    """Publish the page with the verdict on it, in the evaluation's folder and on the night's run."""
    publish_report(folder, verdict)
    for name in ("report.html", "verdict.json"):
        tracker.artifact(night_key, folder / name, "evaluation")


@task(name="re-score the champion", cache_policy=NO_CACHE)
def rescore_champion(
    scorecard: Scorecard, standing: ReleaseState, policy: GatePolicy, *, canary: CanaryPolicy, places: Places
) -> None:
    """Re-score the live champion beside its predecessor on fresh items, for the watch of its holdback."""
    champion_rescore.rescore_champion(open_database(places), scorecard, standing, policy, canary)
