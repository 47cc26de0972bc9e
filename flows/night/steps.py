"""Run the steps of a night that need its record: choose the snapshot, plan, train, evaluate, ask for approval."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from deploy.ledger.evidence import NightReference
from deploy.ledger.ledger import ReleaseState
from deploy.nights.challenger import Challenger
from deploy.nights.steps import APPROVAL_ASKED, TWIN_DUE, checkpoint_step, train_step, twin_step
from evaluation.gate.verdict import Verdict
from evaluation.job.config import EvaluationConfig, EvaluationJob
from evaluation.run.noise_floors import hardware_name, seed_spread_due
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.night.approval_form import ask_approval
from flows.night.candidates import NightData, NightVersions
from flows.night.record import Night
from flows.planning.gate_power import gate_power
from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import UserError
from infra.processes.threads import physical_cores
from infra.telemetry.mlflow_tracker import Tracker
from tasks import intake, judge, notify, train
from training.base_model import Base
from training.recipes.plan import Plan
from training.recipes.recipe import Recipe

log = logging.getLogger(__name__)


def choose_snapshot(night: Night) -> str | None:
    """Return the name of the snapshot to train and judge on: the one asked for, else a new cut; None without data.

    Raises:
        NotFound: there is no snapshot of that name.
        UserError: it is another tenant's.
    """
    name = night.request.snapshot
    if name is None:
        return intake.snapshot(night.config.snapshot, night.places, night.tenant)
    snapshot = load_snapshot(night.places.snapshots_dir / Path(name).name)
    if snapshot.tenant != night.tenant:
        raise UserError(f"snapshot {name} is of tenant {snapshot.tenant!r}, expected one of {night.tenant!r}")
    return snapshot.id


def plan_training(night: Night, counts: Mapping[str, int], base: Base) -> Plan:
    """Plan what the night trains on so many examples of each shape."""
    config = night.config
    return train.plan(counts, night.training, base, engine=config.serving.engine, cache=config.places.cache_dir)


def gate_power_of(night: Night, plan: Plan, units: int) -> str:
    """Say the smallest gain that tonight's gate set can detect, corrected for every challenger that is launched."""
    return gate_power(night.gate, units, len(plan.recipes) + len(night.request.checkpoints))


def why_not_trained(plan: Plan, questions: int) -> str:
    """Say why a night with data trains nothing."""
    if not questions:
        return "nothing can be judged yet: the snapshot has no gate items (labels by trusted people) to examine with"
    reasons = "; ".join(f"{left.recipe}: {left.reason}" for left in plan.left_out)
    return f"no recipe can be trained tonight: {reasons}"


def train_one(night: Night, recipe: Recipe, base: Base, snapshot: Snapshot, tracker: Tracker) -> Challenger:
    """Train one recipe's challenger, once per night."""
    return night.once(
        train_step(recipe.name),
        lambda: train.train(
            recipe,
            base=base,
            data=(snapshot.train, snapshot.validation),
            config=night.training,
            places=night.places,
            tracker=tracker,
            night_key=night.run_key,
        ),
    )


def train_twin(night: Night, plan: Plan, base: Base, snapshot: Snapshot, tracker: Tracker) -> Challenger | None:
    """Train, now and then, the cheapest recipe once more with the next seed: how much of a gain is the seed's luck?

    None on most nights, when the training budget has no room for it, and when nothing is trained.
    """
    if not plan.recipes:
        return None
    config, training = night.config, night.training
    threads = training.threads or physical_cores()
    hardware = hardware_name(threads, config.serving.dtype)
    every = config.evaluation.seed_twin_nights
    recipe, minutes = min(
        zip(plan.recipes, (e.minutes for e in plan.estimates), strict=True), key=lambda pair: (pair[1], pair[0].name)
    )
    if plan.minutes + minutes > training.budget_minutes:
        return None
    due = night.once(
        TWIN_DUE,
        lambda: seed_spread_due(open_database(config.places), hardware, every=every, night_id=night.night_id),
    )
    if not due:
        return None
    log.info("%s is trained once more with another seed, to measure the spread between seeds", recipe.name)
    twin = night.once(
        twin_step(recipe.name),
        lambda: train.train(
            recipe.model_copy(update={"name": f"{recipe.name}-twin"}),
            base=base,
            data=(snapshot.train, snapshot.validation),
            config=training.model_copy(update={"seed": training.seed + 1}),
            places=config.places,
            tracker=tracker,
            night_key=night.run_key,
        ),
    )
    return twin.model_copy(update={"recipe": recipe.name})


def take_checkpoint(night: Night, name: str, base: Base) -> Challenger:
    """Make a challenger of a kept checkpoint (KEY:STEP) that this night was asked to examine."""
    return night.once(checkpoint_step(name), lambda: train.checkpoint(name, base, night.places))


def judge_night(
    night: Night,
    base: Base,
    standing: ReleaseState,
    challengers: tuple[Challenger, ...],
    twin: Challenger | None,
    snapshot: Snapshot,
    tracker: Tracker,
) -> Verdict:
    """Evaluate all versions on tonight's items, apply the gate, and score the champion beside its predecessor."""
    places, policy = night.places, night.gate
    job = evaluation_of(night, base, standing, challengers, twin, snapshot, night.config.evaluation)
    recipes = {c.stages[-1].version: c.recipe for c in challengers if c.stages}
    scorecard = judge.evaluate(job, tracker=tracker, night_key=night.run_key, recipes=recipes, places=places)
    verdict = judge.judge(scorecard, policy)
    # Before anything can go wrong: a night that fails, or is given up, from here on has used its items all the same.
    judge.count_uses(scorecard, places, night.tenant)
    judge.publish(job.output_dir, verdict, tracker=tracker, night_key=night.run_key)
    judge.rescore_champion(scorecard, standing, policy, canary=night.config.canary, places=places)
    return verdict


def evaluation_of(
    night: Night,
    base: Base,
    standing: ReleaseState,
    challengers: tuple[Challenger, ...],
    twin: Challenger | None,
    snapshot: Snapshot,
    evaluation: EvaluationConfig,
) -> EvaluationJob:
    """Make the job of the night's evaluation, on the gate items in its folder."""
    training, config = night.training, night.config
    versions = NightVersions(
        base, standing, challengers, twin, training.seed, config.places, serving_engine=config.serving.engine
    )
    return versions.job(
        night.night_id,
        NightData(night.folder / "items.jsonl", night.folder / "shown.jsonl", snapshot.train),
        evaluation,
        primary=night.gate.primary,
        dtype=config.serving.dtype,
        threads=training.threads,
    )


def why_not_approved(night: Night, verdict: Verdict, tracker: Tracker) -> str | None:
    """Ask a person where the verdict needs one; return the reason for a refusal (by time-out too), None if approved."""
    if not verdict.needs_approval:
        return None
    links = {"the night's run on MLflow, with the scorecard": tracker.url_of(night.run_key)}
    # Recorded, so that a night that is killed and resumed does not wait the whole time once more.
    since = datetime.fromisoformat(night.once(APPROVAL_ASKED, lambda: alert_reviewers(night, verdict)))
    hours = night.config.schedule.approval_hours - (now() - since).total_seconds() / 3600
    return ask_approval(verdict, hours=max(hours, 0.0), links=links)


def alert_reviewers(night: Night, verdict: Verdict) -> str:
    """Alert that a night waits for a person; return when (ISO 8601)."""
    hours = night.config.schedule.approval_hours
    alert = Alert(
        kind="approval_needed",
        severity="warning",
        tenant=night.tenant,
        title=f"night {night.night_id} waits for a person: release {verdict.winner}?",
        text=f"{' '.join(verdict.reasons)} No answer within {hours:g} hours means no."[:4000],
        next_step=f"`ratchet approve {night.night_id}` or `ratchet decline {night.night_id}`; both show the scorecard",
        payload={"night_id": night.night_id, "version": verdict.winner, "hours": hours},
        dedupe_key=f"approval_needed/{night.night_id}",
    )
    notify.alert(night.places, night.config.alerts, alert)
    return now().isoformat()


def night_reference(night: Night, snapshot: Snapshot, tracker: Tracker) -> NightReference:
    """Name what the night's ledger entry points to."""
    return NightReference(snapshot=snapshot.id, mlflow_run=tracker.run_id(night.run_key), note=night.request.note)
