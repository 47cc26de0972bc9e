"""A night that judges nothing still scores the live champion again, where enough new gate items came in for it.

Without this, a champion that became worse would be noticed only on nights that also have something to train.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from deploy.ledger.ledger import Standing
from evaluation.gate.policy import GatePolicy
from evaluation.job.config import EvaluationConfig
from evaluation.metrics import METRICS
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from feedback.snapshots.gate_items import GateItem, gate_items
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.intake.mlflow_alerts import send_rest
from flows.night.record import RESCORE, Night, nights_of
from flows.night.steps import gate_of, job_of, night_key
from flows.night.tracking import log_night, machine_watched, open_tracking
from infra.errors import RatchetError
from infra.stored_model import Stored
from tasks import intake, judge
from tasks.reporting import prefect_artifacts
from training.base_model import Base

log = logging.getLogger(__name__)


class Rescored(Stored):
    """What a night that judged nothing scored again."""

    champion: str
    """The live version."""
    predecessor: str
    """The version it was held beside."""
    snapshot: str
    """Whose gate items."""


def worth_rescoring(standing: Standing, items: Sequence[GateItem], seen: Collection[str], policy: GatePolicy) -> bool:
    """Whether enough units are new for the champion to be scored again.

    Args:
        items: the gate items of tonight's snapshot.
        seen: ids of those on which an earlier night without a verdict scored the same two versions: the same answers to
            the same questions would say nothing more.
    """
    if standing.champion is None or standing.predecessor in (None, standing.champion):
        return False
    units = {item.group for item in items if item.uses == 0 and item.item_id not in seen}
    return len(units) >= policy.min_fresh_units


def rescore_anyway(
    night: Night, base: Base, standing: Standing, report: IngestReport, drift: DriftReport, name: str
) -> None:
    """Before a night ends early: champion, predecessor and base on the gate's items, if enough of them are new.

    The items stay fresh for the next verdict: nothing was chosen by them.
    """
    if not name or night.has(RESCORE):
        return
    snapshot = load_snapshot(night.config.places.snapshots_dir / name)
    if worth_rescoring(standing, gate_items(snapshot), _seen(night, standing), gate_of(night)):
        night.once(RESCORE, Rescored, lambda: _rescore(night, base, standing, report, drift, snapshot))


def _rescore(
    night: Night, base: Base, standing: Standing, report: IngestReport, drift: DriftReport, snapshot: Snapshot
) -> Rescored:
    champion, predecessor = standing.champion, standing.predecessor
    assert champion is not None and predecessor is not None  # worth_rescoring asks for both
    log.info("nothing is judged tonight; %s is scored again beside %s on new gate items", champion, predecessor)
    places, policy, key = night.config.places, gate_of(night), night_key(night)
    intake.write_questions(snapshot, night.folder)
    tracker = open_tracking(night)
    log_night(tracker, night, report, snapshot, drift)
    job = job_of(night, base, standing, (), None, snapshot, only_what_tells(night.config.evaluation, policy.primary))
    with machine_watched(tracker, night):
        scorecard = judge.evaluate(job, tracker=tracker, night_key=key, recipes={}, places=places)
    judge.rescore_champion(scorecard, standing, policy, canary=night.config.canary, places=places)
    prefect_artifacts.show_scorecard(scorecard)
    tracker.tags(key, {"ratchet.decision": "none"})
    tracker.finish(key)
    send_rest(night.config, tracker)
    return Rescored(champion=champion, predecessor=predecessor, snapshot=snapshot.id)


def only_what_tells(config: EvaluationConfig, primary: str) -> EvaluationConfig:
    """The evaluation without what only a verdict asks for: base abilities, prompts, and where it can be the judges."""
    changes: dict[str, object] = {"regression": False, "prompt_candidates": 0, "report_examples": 0}
    if primary in METRICS and primary in config.metrics:
        changes |= {"metrics": (primary,), "judges": ()}
        if primary != "unsafe":
            changes["safety"] = None
    return EvaluationConfig.model_validate(config.model_dump() | changes)


def _seen(night: Night, standing: Standing) -> set[str]:
    """The gate items of the last night without a verdict that scored the same two versions."""
    same = (standing.champion, standing.predecessor)
    for earlier in reversed(nights_of(night.config, night.tenant)):
        if RESCORE in earlier.steps:
            before = Rescored.model_validate(earlier.steps[RESCORE])
            if (before.champion, before.predecessor) != same:
                return set()
            try:
                snapshot = load_snapshot(night.config.places.snapshots_dir / before.snapshot)
            except RatchetError:
                return set()  # forgotten or moved: scoring them once more costs time and is wrong in nothing
            return {item.item_id for item in gate_items(snapshot)}
    return set()
