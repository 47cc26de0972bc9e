"""The steps of a night that need its record: what to train and to measure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.ledger.ledger import Standing
from evaluation.gate.policy import GatePolicy
from evaluation.gate.verdict import Verdict
from evaluation.job.config import EvaluationConfig, EvaluationJob
from evaluation.run.noise_floors import hardware_name, seed_spread_due
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.night.approval_form import ask_approval
from flows.night.candidates import NightData, NightVersions
from flows.night.record import Night
from flows.planning.gate_power import sight
from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import UserError
from infra.processes.threads import physical_cores
from infra.telemetry.mlflow_tracker import Tracker
from tasks import intake, judge, notify, train
from tasks.train import Challenger
from training.base_model import Base
from training.recipes.plan import Plan, TrainingConfig
from training.recipes.recipe import Recipe

log = logging.getLogger(__name__)


def night_key(night: Night) -> str:
    """Key of the night's MLflow run."""
    return f"night/{night.night_id}"


def training_of(night: Night) -> TrainingConfig:
    """The config's training section with what this night was asked for."""
    request, training = night.request, night.config.training
    changes: dict[str, Any] = {}
    if request.recipes:
        changes["methods"] = request.recipes
    if request.budget_minutes is not None:
        changes["budget_minutes"] = request.budget_minutes
    if request.seed is not None:
        changes["seed"] = request.seed
    return TrainingConfig.model_validate({**training.model_dump(), **changes})


def gate_of(night: Night) -> GatePolicy:
    """The config's gate policy with this night's changes."""
    return GatePolicy.model_validate({**night.config.gate.model_dump(), **night.request.gate.given()})


def snapshot_of(night: Night) -> str:
    """Name of what the night trains and judges on: the one asked for, else a new cut; "" when there is nothing yet.

    Raises:
        NotFound: there is no snapshot of that name.
        UserError: it is another tenant's.
    """
    places, asked = night.config.places, night.request.snapshot
    if asked is None:
        return intake.snapshot(night.config.snapshot, places, night.tenant)
    found = load_snapshot(places.snapshots_dir / Path(asked).name)
    if found.tenant != night.tenant:
        raise UserError(f"snapshot {asked} is of tenant {found.tenant!r}, expected one of {night.tenant!r}")
    return found.id


def plan_of(night: Night, counts: Mapping[str, int], base: Base) -> Plan:
    """What the night would train on so many examples of each shape."""
    config = night.config
    return train.plan(counts, training_of(night), base, engine=config.serving.engine, cache=config.places.cache_dir)


def sight_of(night: Night, plan: Plan, units: int) -> str:
    """The smallest gain that tonight's gate set can see, with a correction for every challenger that is launched."""
    return sight(gate_of(night), units, len(plan.recipes) + len(night.request.checkpoints))


def why_not_trained(plan: Plan, questions: int) -> str:
    """Why a night with data trains nothing."""
    if not questions:
        return "nothing can be judged yet: the snapshot has no gate items (labels by trusted people) to examine with"
    reasons = "; ".join(f"{left.recipe}: {left.reason}" for left in plan.left_out)
    return f"no recipe can be trained tonight: {reasons}"


def train_one(night: Night, recipe: Recipe, base: Base, snapshot: Snapshot, tracker: Tracker) -> Challenger:
    """One recipe's challenger, trained once per night."""
    return night.once(
        f"train {recipe.name}",
        Challenger,
        lambda: train.train(
            recipe,
            base=base,
            data=(snapshot.train, snapshot.validation),
            config=training_of(night),
            places=night.config.places,
            tracker=tracker,
            night_key=night_key(night),
        ),
    )


def train_twin(night: Night, plan: Plan, base: Base, snapshot: Snapshot, tracker: Tracker) -> Challenger | None:
    """Now and then the night's cheapest recipe once more with the next seed: how much of a gain is the seed's luck?

    None on most nights, when the training budget has no room for it, and when nothing is trained.
    """
    if not plan.recipes:
        return None
    config, training = night.config, training_of(night)
    threads = training.threads or physical_cores()
    hardware = hardware_name(threads, config.serving.dtype)
    every = config.evaluation.seed_twin_nights
    recipe, minutes = min(
        zip(plan.recipes, (e.minutes for e in plan.estimates), strict=True), key=lambda pair: (pair[1], pair[0].name)
    )
    if plan.minutes + minutes > training.budget_minutes:
        return None
    due = night.once(
        "twin due",
        bool,
        lambda: seed_spread_due(open_database(config.places), hardware, every=every, night_id=night.night_id),
    )
    if not due:
        return None
    log.info("%s is trained once more with another seed, to measure the spread between seeds", recipe.name)
    twin = night.once(
        f"train twin of {recipe.name}",
        Challenger,
        lambda: train.train(
            recipe.model_copy(update={"name": f"{recipe.name}-twin"}),
            base=base,
            data=(snapshot.train, snapshot.validation),
            config=training.model_copy(update={"seed": training.seed + 1}),
            places=config.places,
            tracker=tracker,
            night_key=night_key(night),
        ),
    )
    return twin.model_copy(update={"recipe": recipe.name})


def take_checkpoint(night: Night, named: str, base: Base) -> Challenger:
    """A kept checkpoint that this night was asked to examine."""
    places = night.config.places
    return night.once(f"checkpoint {named}", Challenger, lambda: train.checkpoint(named, base, places))


def measure(
    night: Night,
    base: Base,
    standing: Standing,
    challengers: tuple[Challenger, ...],
    twin: Challenger | None,
    snapshot: Snapshot,
    tracker: Tracker,
) -> Verdict:
    """All versions on tonight's items, the gate's word on them, and the champion beside its predecessor."""
    places, policy = night.config.places, gate_of(night)
    job = job_of(night, base, standing, challengers, twin, snapshot, night.config.evaluation)
    recipes = {c.stages[-1].version: c.recipe for c in challengers if c.stages}
    scorecard = judge.evaluate(job, tracker=tracker, night_key=night_key(night), recipes=recipes, places=places)
    verdict = judge.judge(scorecard, policy)
    # Before anything can go wrong: a night that fails, or is given up, from here on has used its items all the same.
    judge.count_uses(scorecard, places, night.tenant)
    judge.publish(job.output_dir, verdict, tracker=tracker, night_key=night_key(night))
    judge.rescore_champion(scorecard, standing, policy, canary=night.config.canary, places=places)
    return verdict


def job_of(
    night: Night,
    base: Base,
    standing: Standing,
    challengers: tuple[Challenger, ...],
    twin: Challenger | None,
    snapshot: Snapshot,
    evaluation: EvaluationConfig,
) -> EvaluationJob:
    """What the night measures, on the questions in its folder."""
    training, config = training_of(night), night.config
    versions = NightVersions(
        base, standing, challengers, twin, training.seed, config.places, serving_engine=config.serving.engine
    )
    return versions.job(
        night.night_id,
        NightData(night.folder / "items.jsonl", night.folder / "shown.jsonl", snapshot.train),
        evaluation,
        primary=gate_of(night).primary,
        dtype=config.serving.dtype,
        threads=training.threads,
    )


def approve(night: Night, verdict: Verdict, tracker: Tracker) -> str:
    """ "" when the release may go on, else a person's (or the clock's) no."""
    if not verdict.needs_approval:
        return ""
    links = {"the night's run on MLflow, with the scorecard": tracker.url_of(night_key(night))}
    # Remembered, so that a night that is killed and taken up again does not wait the whole time once more.
    asked = datetime.fromisoformat(night.once("approval asked", str, lambda: tell_who_approves(night, verdict)))
    hours = night.config.schedule.approval_hours - (now() - asked).total_seconds() / 3600
    return ask_approval(verdict, hours=max(hours, 0.0), links=links)


def tell_who_approves(night: Night, verdict: Verdict) -> str:
    """Alert that a night waits for a person; when that was."""
    hours = night.config.schedule.approval_hours
    what = Alert(
        kind="approval_needed",
        severity="warning",
        tenant=night.tenant,
        title=f"night {night.night_id} waits for a person: release {verdict.winner}?",
        text=f"{' '.join(verdict.reasons)} No answer within {hours:g} hours means no."[:4000],
        next_step=f"`ratchet approve {night.night_id}` or `ratchet decline {night.night_id}`; both show the scorecard",
        payload={"night_id": night.night_id, "version": verdict.winner, "hours": hours},
        dedupe_key=f"approval_needed/{night.night_id}",
    )
    notify.alert(night.config.places, night.config.alerts, what)
    return now().isoformat()


def evidence(night: Night, snapshot: Snapshot, tracker: Tracker) -> dict[str, Any]:
    """What the ledger's line of this night points to."""
    return {"snapshot": snapshot.id, "mlflow_run": tracker.run_id(night_key(night)), "note": night.request.note}
