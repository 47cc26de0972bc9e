"""From challengers to a verdict: all versions measured on the same items, then the gate."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.canary.assess import rescore_verdict
from deploy.canary.policy import CanaryPolicy
from deploy.canary.rescore import record_rescore, rescored
from deploy.ledger.ledger import ReleaseState, Watch, current
from evaluation.gate.decide import decide
from evaluation.gate.policy import GatePolicy
from evaluation.gate.rescore import Rescore, rescore
from evaluation.gate.verdict import Verdict
from evaluation.job.config import EvaluationJob
from evaluation.report.report import publish_report
from evaluation.run.launch import launch_evaluation
from evaluation.run.noise_floors import record_floors, seed_spread_due
from evaluation.scorecard import Scorecard, read_scorecard
from feedback.snapshots.gate_items import mark_used
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write
from infra.settings import Places
from infra.telemetry.mlflow_journal import Tracker
from tasks.opened import database
from tasks.progress_bar import ProgressBar

log = logging.getLogger(__name__)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(
    job: EvaluationJob, *, tracker: Tracker, night_key: str, recipes: Mapping[str, str], places: Places
) -> Scorecard:
    """Champion, challengers and base answer the same items; what was finished before a kill is not asked again."""
    launch_evaluation(job, ProgressBar("evaluation").show)
    scorecard = read_scorecard(job.output_dir)
    record_floors(database(places), scorecard)
    log_scorecard(tracker, night_key, scorecard, job.output_dir, recipes)
    return scorecard


@task(name="gate", cache_policy=NO_CACHE)
def judge(scorecard: Scorecard, policy: GatePolicy) -> Verdict:
    """Promote, reject, or inconclusive."""
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
    """The page with the verdict on it, in the evaluation's folder and on the night's run."""
    publish_report(folder, verdict)
    for name in ("report.html", "verdict.json"):
        tracker.artifact(night_key, folder / name, "evaluation")


@task(name="re-score the champion", cache_policy=NO_CACHE)
def rescore_champion(
    scorecard: Scorecard, standing: ReleaseState, policy: GatePolicy, *, canary: CanaryPolicy, places: Places
) -> None:
    """The live champion beside its predecessor on fresh items: a p-value that the watch of its holdback reads."""
    found, why_not = rescore(scorecard, standing.predecessor, policy)
    if found is None:
        log.info("the champion is not re-scored tonight: %s", why_not)
        return
    engine = database(places)
    stands = current(engine, standing.tenant)
    if stands.champion_seq != standing.champion_seq:
        log.info("%s is no longer the champion that the night began with: no p-value of it is kept", found.champion)
        return
    record_rescore(engine, standing.tenant, found.champion, scorecard.night_id, found.p_value)
    p_values = rescored(engine, standing.tenant, found.champion, since=stands.since)
    worse = rescore_verdict(p_values, canary.alpha("rescore"))
    log.info("re-scored on %s fresh units: %+.4f, p of worse = %.4g", found.units, found.mean, found.p_value)
    if worse is not None and (stands.watch is None or stands.watch.phase != "holdback"):
        _tell_worse(places, standing.tenant, found, worse, scorecard.night_id, stands.watch)


def _tell_worse(places: Places, tenant: str, found: Rescore, worse: str, night_id: str, watch: Watch | None) -> None:
    """Only the watch of its own holdback takes a champion back by itself; without that, people must hear of it."""
    other = "" if watch is None else f" The open canary of {watch.version} is compared with it, and would end with it."
    what = Alert(
        kind="champion_worse",
        severity="critical",
        tenant=tenant,
        title=f"{found.champion} is worse than its predecessor {found.predecessor}",
        text=f"{worse}; {found.metric} {found.mean:+.4f} on {found.units} units that no earlier verdict used. Its "
        f"holdback is over, so it is not taken back by itself.{other}",
        next_step=f'`ratchet rollback --reason "worse when scored again" --to {found.predecessor}`',
        payload=found.model_dump(mode="json") | {"night_id": night_id},
        dedupe_key=f"champion_worse/{tenant}/{night_id}",
    )
    with begin_write(database(places)) as connection:
        enqueue(connection, what)


def twin_is_due(places: Places, hardware: str, *, every: int, night_id: str) -> bool:
    """Whether tonight should measure the spread between seeds."""
    return seed_spread_due(database(places), hardware, every=every, night_id=night_id)


def log_scorecard(
    tracker: Tracker, night_key: str, scorecard: Scorecard, folder: Path, recipes: Mapping[str, str]
) -> None:
    """Means of every metric on the challengers' runs, the whole scorecard on the night's.

    ``recipes`` maps a version to the recipe whose run is its own.
    """
    for card in scorecard.versions:
        means = {
            f"gate.{e.metric}": e.mean for e in scorecard.estimates if e.version == card.version and e.part == "all"
        }
        if card.version in recipes:
            tracker.metrics(f"{night_key}/{recipes[card.version]}", means)
        if card.version == scorecard.champion:
            tracker.metrics(night_key, {f"champion.{name}": value for name, value in means.items()})
    _log_tables(tracker, night_key, scorecard, folder)
    for name in ("scorecard.json", scorecard.items_file, "record.json"):
        if (folder / name).exists():
            tracker.artifact(night_key, folder / name, "evaluation")


def _log_tables(tracker: Tracker, night_key: str, scorecard: Scorecard, folder: Path) -> None:
    """Every item's values without its text, and the answers side by side to items that people may see."""
    labels = {card.version: card.label for card in scorecard.versions}
    columns = [(m, v) for m, versions in sorted(scorecard.gate.scores.items()) for v in sorted(versions)]
    rows = [
        [item.item_id, item.group, item.part, *(scorecard.gate.scores[m][v][place] for m, v in columns)]
        for place, item in enumerate(scorecard.gate.items)
    ]
    names = [f"{metric}: {labels.get(version, version)}" for metric, version in columns]
    tracker.table(night_key, "items", ["item", "unit", "part", *names], rows)
    file = folder / "examples.json"
    examples = json.loads(file.read_text()) if file.exists() else []
    versions = [card.version for card in scorecard.versions]
    answers = [[e["question"], e["reference"], *(e["answers"].get(v, "") for v in versions)] for e in examples]
    tracker.table(night_key, "examples", ["question", "reference", *(labels[v] for v in versions)], answers)
