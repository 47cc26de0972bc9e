"""From challengers to a verdict: all versions measured on the same items, then the gate."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.ledger import Standing
from deploy.versions import load_version
from evaluation.gate import Verdict, decide
from evaluation.job import Candidate, EvaluationConfig, EvaluationJob
from evaluation.launch import launch_evaluation
from evaluation.policy import GatePolicy
from evaluation.scorecard import Scorecard, read_scorecard
from infra.settings import Places
from infra.tracking import Tracker
from tasks.train import Challenger
from training.base_model import Base

log = logging.getLogger(__name__)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate(job: EvaluationJob, *, tracker: Tracker, night_key: str, recipes: Mapping[str, str]) -> Scorecard:
    """Champion, challengers and base answer the same items; what was finished before a kill is not asked again."""
    launch_evaluation(job, ProgressBar("evaluation").note)
    scorecard = read_scorecard(job.output_dir)
    log_scorecard(tracker, night_key, scorecard, job.output_dir, recipes)
    return scorecard


@task(name="gate", cache_policy=NO_CACHE)
def judge(scorecard: Scorecard, policy: GatePolicy) -> Verdict:
    """Promote, reject, or inconclusive."""
    verdict = decide(scorecard, policy)
    for reason in verdict.reasons:
        log.info("%s: %s", verdict.decision, reason)
    return verdict


def evaluation_job(
    *,
    night_id: str,
    base: Base,
    standing: Standing,
    challengers: Sequence[Challenger],
    items: Path,
    examples: Path | None,
    train: Path,
    config: EvaluationConfig,
    places: Places,
    seed: int,
    dtype: Any,
    threads: int | None,
) -> EvaluationJob:
    """Everything to measure tonight: base, champion, its predecessor, the challengers and their sft stages."""
    versions = {base.version: _base(base)}
    for name in (standing.champion, standing.previous):
        if name is not None and name not in versions:
            versions[name] = _released(name, places, reference=name != standing.champion)
    for challenger in challengers:
        _add_challenger(versions, challenger, places, standing)
    return EvaluationJob(
        night_id=night_id,
        base_path=base.path,
        base_digest=base.digest,
        versions=tuple(versions.values()),
        champion=standing.champion or base.version,
        failed_challengers=tuple(c.recipe for c in challengers if c.error is not None),
        items_file=items,
        examples_file=examples,
        training_files=(train,),
        config=config,
        seed=seed,
        dtype=dtype,
        **({"threads": threads} if threads else {}),
        output_dir=places.evaluations_dir / night_id,
    )


def _base(base: Base) -> Candidate:
    return Candidate(version=base.version, label="base", kind="base", digest=base.digest)


def _released(name: str, places: Places, *, reference: bool) -> Candidate:
    file = load_version(places.versions_dir, name)
    label = "previous champion" if reference else "champion"
    return Candidate(
        version=name,
        label=label,
        kind=file.kind,
        path=file.path,
        digest=file.digest,
        probe=file.probe,
        reference_only=reference,
    )


def _add_challenger(versions: dict[str, Candidate], challenger: Challenger, places: Places, standing: Standing) -> None:
    """The challenger, and as a reference the sft stage that a preference recipe began with."""
    if challenger.error is not None:
        return
    last = challenger.stages[-1]
    sft = next((stage for stage in challenger.stages[:-1] if stage.objective == "sft"), None)
    if sft is not None and sft.version not in versions:
        versions[sft.version] = Candidate(
            version=sft.version,
            label=f"{challenger.recipe}: sft stage",
            kind=sft.kind,
            path=places.stages_dir / sft.key / sft.kind,
            digest=sft.digest,
            objective="sft",
            reference_only=True,
            probe=places.stages_dir / sft.key / "probe.json",
        )
    known = versions.get(last.version)
    if known is not None and not known.reference_only:
        log.info("%s gave the same weights as %s: measured once", challenger.recipe, known.label)
        return
    # A reference that turns out to be a recipe of its own (sft beside sft-then-dpo) is measured as a challenger,
    # except for a predecessor of the champion, which can only be a reference.
    if known is not None and last.version == standing.previous:
        return
    versions[last.version] = Candidate(
        version=last.version,
        label=challenger.recipe,
        kind=last.kind,
        path=places.stages_dir / last.key / last.kind,
        digest=last.digest,
        recipe=challenger.recipe,
        objective=last.objective,
        sft_parent=sft.version if sft is not None else None,
        probe=places.stages_dir / last.key / "probe.json",
    )


def log_scorecard(
    tracker: Tracker, night_key: str, scorecard: Scorecard, folder: Path, recipes: Mapping[str, str]
) -> None:
    """Means of every metric on the challengers' runs, the whole scorecard and report on the night's.

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
    for name in ("scorecard.json", "report.html", scorecard.items_file, "record.json"):
        if (folder / name).exists():
            tracker.artifact(night_key, folder / name, "evaluation")


class ProgressBar:
    """A Prefect progress bar, moved at most every few seconds."""

    def __init__(self, what: str, *, every_seconds: float = 2.0) -> None:
        self.what = what
        self.every_seconds = every_seconds
        self.moved = 0.0
        self.artifact: Any = None

    def note(self, line: Mapping[str, Any]) -> None:
        """``done`` of ``total``, and the phase."""
        done, total = int(line["done"]), max(1, int(line["total"]))
        if time.monotonic() - self.moved < self.every_seconds and done < total:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self.moved = time.monotonic()
        if self.artifact is None:
            self.artifact = create_progress_artifact(100.0 * done / total, description=self.what)
        else:
            update_progress_artifact(self.artifact, 100.0 * done / total)
        log.info("%s: %s of %s (%s)", self.what, done, total, line.get("phase", ""))
