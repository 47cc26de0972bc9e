"""Train challengers as tasks: find the base model, plan the recipes, train each of them, take kept checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.engines import SERVING_ENGINES
from deploy.nights.challenger import Challenger
from deploy.nights.train_challenger import take_checkpoint, train_challenger
from infra.settings import Places
from infra.telemetry.mlflow_tracker import Tracker
from tasks.reporting.training_log import TrainingLog
from training.base_model import Base, resolve_base
from training.recipes.plan import Plan, TrainingConfig
from training.recipes.plan_here import plan_here
from training.recipes.recipe import Recipe
from training.stages.recipe_runner import train_recipe


@task(name="find base model", cache_policy=NO_CACHE)
def find_base(name: str, places: Places) -> Base:
    """Find the base model, converting it if that was never done."""
    return resolve_base(name, places.cache_dir)


@task(name="plan", cache_policy=NO_CACHE)
def plan(
    counts: Mapping[str, int],
    config: TrainingConfig,
    base: Base,
    *,
    engine: str = "embedded",
    cache: Path | None = None,
) -> Plan:
    """Choose the recipes that tonight's data, budget and memory support and the serving engine can load."""
    return plan_here(counts, config, base, lora_only=SERVING_ENGINES.named(engine).lora_only, cache=cache)


@task(name="train", task_run_name="train {recipe.name}", cache_policy=NO_CACHE)
def train(
    recipe: Recipe,
    *,
    base: Base,
    data: tuple[Path, Path],
    config: TrainingConfig,
    places: Places,
    tracker: Tracker,
    night_key: str,
) -> Challenger:
    """Train all stages of one recipe. A recipe that fails is a challenger without weights; the night goes on."""
    training_log = TrainingLog(tracker, night_key, recipe)
    training_log.open()
    run = partial(train_recipe, recipe, base=base, train=data[0], validation=data[1], config=config)
    run_here = partial(run, stages_dir=places.stages_dir, cache=places.cache_dir, on_progress=training_log.log_progress)
    challenger = train_challenger(recipe, run_here)
    training_log.close(challenger, places.stages_dir)
    return challenger


@task(name="checkpoint", task_run_name="checkpoint {named}", cache_policy=NO_CACHE)
def checkpoint(named: str, base: Base, places: Places) -> Challenger:
    """Make a challenger of a kept checkpoint, named KEY:STEP; one that cannot be used is a challenger without weights.

    Recipes were trained by the time it is asked for, and are not lost to a mistyped name.
    """
    return take_checkpoint(named, base, places.stages_dir)
