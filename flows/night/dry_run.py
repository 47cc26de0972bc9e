"""Plan a night without running it (dry run): what it would train, and for how long. Nothing is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pydantic import SerializerFunctionWrapHandler, model_serializer

from feedback.lake.lake import lake_of
from feedback.store.store import Store
from flows.night.record import Night
from flows.night.steps import gate_power_of, plan_training
from flows.planning.data_counts import counts_of_last_snapshot
from flows.planning.gate_power import last_snapshot, units_of
from infra.database.open import open_database
from infra.settings import Config
from tasks import train
from tasks.reporting import prefect_artifacts
from training.recipes.plan import GUESS

log = logging.getLogger(__name__)


class DryRun(Config):
    """What a night would do."""

    dry_run: bool = True
    tenant: str
    new_feedback_events: int
    """What came in since the last ingest."""
    examples_of_last_snapshot: Mapping[str, int]
    """Training examples by shape; empty before the first snapshot."""
    recipes: tuple[str, ...]
    """What would be trained, in order."""
    minutes: float
    """How long that would take."""
    note: str | None = None
    """What is to be said of the minutes; left out where they are no guess."""
    gate: str
    """The smallest gain that the gate set could detect."""
    left_out: Mapping[str, str]
    """Recipe to why it would not be trained."""

    @model_serializer(mode="wrap")
    def _without_empty_note(self, dump: SerializerFunctionWrapHandler) -> object:
        return {name: value for name, value in dump(self).items() if name != "note" or value is not None}


def plan_dry_run(night: Night) -> DryRun:
    """Plan on the data of the last night's snapshot, with the gate's power, and count what came in since."""
    config, places = night.config, night.places
    last = lake_of(places).last()
    waiting = Store(open_database(places)).ready_count(last.cursor if last else 0)
    counts = counts_of_last_snapshot(config, night.tenant)
    base = train.find_base(config.base_model, places)
    plan = plan_training(night, counts, base)
    snapshot = last_snapshot(config, night.tenant)
    power = gate_power_of(night, plan, 0 if snapshot is None else units_of(snapshot))
    prefect_artifacts.show_plan(plan, power)
    log.info("dry run: %s new feedback events, %s recipes, %.0f min", waiting, len(plan.recipes), plan.minutes)
    return DryRun(
        tenant=night.tenant,
        new_feedback_events=waiting,
        examples_of_last_snapshot=counts,
        recipes=tuple(recipe.name for recipe in plan.recipes),
        minutes=round(plan.minutes, 1),
        note=GUESS if plan.guessed else None,
        gate=power,
        left_out={left.recipe: left.reason for left in plan.left_out},
    )
