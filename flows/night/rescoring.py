"""Score the live champion again on a night that judges nothing, where enough new gate items came in for it.

Without this, a champion that became worse would be noticed only on nights that also have something to train.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from deploy.ledger.ledger import ReleaseState
from deploy.nights.steps import RESCORE, Rescored
from evaluation.gate.policy import GatePolicy
from evaluation.job.config import EvaluationConfig
from evaluation.metrics import METRICS
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from feedback.snapshots.gate_items import GateItem, gate_items
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.intake.mlflow_alerts import send_rest
from flows.night.evaluation_items import write_evaluation_items
from flows.night.record import Night, nights_of
from flows.night.steps import evaluation_of
from flows.night.tracking import log_night, open_tracker, system_metrics_logged
from infra.errors import RatchetError
from tasks import judge
from tasks.reporting import prefect_artifacts
from training.base_model import Base

log = logging.getLogger(__name__)


def should_rescore(
    standing: ReleaseState, items: Sequence[GateItem], scored: Collection[str], policy: GatePolicy
) -> bool:
    """Decide whether enough units are new for the champion to be scored again.

    Args:
        items: the gate items of tonight's snapshot.
        scored: ids of those on which an earlier night without a verdict scored the same two versions: the same answers
            to the same questions would say nothing more.
    """
    if standing.champion is None or standing.predecessor in (None, standing.champion):
        return False
    units = {item.group for item in items if item.uses == 0 and item.item_id not in scored}
    return len(units) >= policy.min_fresh_units


def rescore_if_due(
    night: Night, base: Base, standing: ReleaseState, report: IngestReport, drift: DriftReport, name: str | None
) -> None:
    """Score champion, predecessor and base on the gate's items before a night ends early, if enough of them are new.

    The items stay fresh for the next verdict: nothing was chosen by them.
    """
    if not name or night.record.has(RESCORE):
        return
    snapshot = load_snapshot(night.places.snapshots_dir / name)
    if should_rescore(standing, gate_items(snapshot), _already_scored(night, standing), night.gate):
        night.once(RESCORE, lambda: _rescore(night, base, standing, report, drift, snapshot))


def _rescore(
    night: Night, base: Base, standing: ReleaseState, report: IngestReport, drift: DriftReport, snapshot: Snapshot
) -> Rescored:
    champion, predecessor = standing.champion, standing.predecessor
    assert champion is not None and predecessor is not None  # should_rescore asks for both
    log.info("nothing is judged tonight; %s is scored again beside %s on new gate items", champion, predecessor)
    places, policy, key = night.places, night.gate, night.run_key
    write_evaluation_items(snapshot, night.folder)
    tracker = open_tracker(night)
    log_night(tracker, night, report, snapshot, drift)
    evaluation = champion_evaluation(night.config.evaluation, policy.primary)
    job = evaluation_of(night, base, standing, (), None, snapshot, evaluation)
    with system_metrics_logged(tracker, night):
        scorecard = judge.evaluate(job, tracker=tracker, night_key=key, recipes={}, places=places)
    judge.rescore_champion(scorecard, standing, policy, canary=night.config.canary, places=places)
    prefect_artifacts.show_scorecard(scorecard)
    tracker.tags(key, {"ratchet.decision": "none"})
    tracker.finish(key)
    send_rest(night.config, tracker)
    return Rescored(champion=champion, predecessor=predecessor, snapshot=snapshot.id)


def champion_evaluation(config: EvaluationConfig, primary: str) -> EvaluationConfig:
    """Leave out of an evaluation what only a verdict needs: base abilities, prompts, and where it can be the judges."""
    changes: dict[str, object] = {"regression": False, "prompt_candidates": 0, "report_examples": 0}
    if primary in METRICS and primary in config.metrics:
        changes |= {"metrics": (primary,), "judges": ()}
        if primary != "unsafe":
            changes["safety"] = None
    return EvaluationConfig.model_validate(config.model_dump() | changes)


def _already_scored(night: Night, standing: ReleaseState) -> set[str]:
    """The gate items of the last night without a verdict that scored the same two versions."""
    same = (standing.champion, standing.predecessor)
    for earlier in reversed(nights_of(night.config, night.tenant)):
        rescored = earlier.result(RESCORE)
        if rescored is not None:
            if (rescored.champion, rescored.predecessor) != same:
                return set()
            try:
                snapshot = load_snapshot(night.places.snapshots_dir / rescored.snapshot)
            except RatchetError:
                return set()  # forgotten or moved: scoring them once more costs time and is wrong in nothing
            return {item.item_id for item in gate_items(snapshot)}
    return set()
