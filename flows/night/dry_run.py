"""A dry run: what the night would do, and how long that would take. Nothing is written."""

from __future__ import annotations

import logging
from typing import Any

from feedback.lake.lake import lake_of
from feedback.store.store import Store
from flows.night.record import Night
from flows.night.steps import plan_of, sight_of
from flows.planning.data_counts import counts_of_last_snapshot
from flows.planning.gate_power import last_snapshot, units_of
from infra.database.open import open_database
from tasks import train
from tasks.reporting import prefect_artifacts
from training.recipes.plan import GUESS

log = logging.getLogger(__name__)


def say_plan(night: Night) -> dict[str, Any]:
    """The plan and the gate's sight on the data of the last night's snapshot, and how much feedback came in since."""
    config, places = night.config, night.config.places
    last = lake_of(places).last()
    waiting = Store(open_database(places)).ready_count(last.cursor if last else 0)
    counts = counts_of_last_snapshot(config, night.tenant)
    base = train.find_base(config.base_model, places)
    plan = plan_of(night, counts, base)
    snapshot = last_snapshot(config, night.tenant)
    sees = sight_of(night, plan, 0 if snapshot is None else units_of(snapshot))
    prefect_artifacts.show_plan(plan, sees)
    log.info("dry run: %s new feedback events, %s recipes, %.0f min", waiting, len(plan.recipes), plan.minutes)
    return {
        "dry_run": True,
        "tenant": night.tenant,
        "new_feedback_events": waiting,
        "examples_of_last_snapshot": counts,
        "recipes": [recipe.name for recipe in plan.recipes],
        "minutes": round(plan.minutes, 1),
        **({"note": GUESS} if plan.guessed else {}),
        "gate": sees,
        "left_out": {left.recipe: left.reason for left in plan.left_out},
    }
