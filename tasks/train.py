"""From a plan to challengers: each recipe trained, its curves on MLflow, its progress in Prefect."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.engines import SERVING_ENGINES
from infra.artifact import Record, version_name
from infra.errors import Diverged, RatchetError, UserError
from infra.processes.progress import ProgressLine
from infra.settings import Places
from infra.stored_model import Stored
from infra.telemetry.mlflow_tracker import Tracker
from tasks.reporting.training_log import TrainingLog
from training.base_model import Base, resolve_base
from training.recipes.memory import shape_of_folder
from training.recipes.memory_fit import room_here
from training.recipes.plan import Plan, TrainingConfig, plan_night
from training.recipes.recipe import Recipe
from training.stages.checkpoints import make_version
from training.stages.job import StageJob
from training.stages.recipe_runner import train_recipe

log = logging.getLogger(__name__)


class TrainedStage(Stored):
    """One finished stage of a challenger."""

    key: str
    """Key of the stage; names its folder."""
    digest: str
    """Digest of its weights."""
    kind: Literal["adapter", "model"]
    """What it made."""
    objective: str
    """Its objective."""

    @property
    def version(self) -> str:
        """Name of its weights as a version."""
        return version_name(self.digest)


class Challenger(Stored):
    """A recipe that was launched, and what came of it."""

    recipe: str
    """Name of the recipe."""
    stages: tuple[TrainedStage, ...] = ()
    """Its finished stages; the last one asks to go live."""
    error: str | None = None
    """Why it failed. It still counts in the gate's correction."""


@task(name="find base model", cache_policy=NO_CACHE)
def find_base(name: str, places: Places) -> Base:
    """Where the base model is, converted if that was never done."""
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
    """Which recipes tonight's data, budget and memory support, and the engine that serves could load."""
    lora_only = SERVING_ENGINES.named(engine).lora_only
    try:
        shape = shape_of_folder(base.path)
    except UserError as error:  # each recipe would fail with it, and say so; nothing can be reckoned without it
        log.warning("memory and minutes are planned without the base model's size: %s", error)
        chosen = plan_night(counts, config, lora_only=lora_only)
    else:
        room = room_here(shape, dtype=config.dtype, processes=config.processes, memory_gb=config.memory_gb, cache=cache)
        chosen = plan_night(counts, config, parameters=shape.total, lora_only=lora_only, room=room)
    for left in chosen.left_out:
        log.info("not tonight: %s: %s", left.recipe, left.reason)
    return chosen


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
    """All stages of one recipe. A recipe that fails is a challenger without weights; the night goes on."""
    training_log = TrainingLog(tracker, night_key, recipe)
    training_log.open()
    challenger = _trained(recipe, lambda: _stages(recipe, base, data, config, places, training_log.note))
    training_log.close(challenger, places.stages_dir)
    return challenger


def _stages(
    recipe: Recipe,
    base: Base,
    data: tuple[Path, Path],
    config: TrainingConfig,
    places: Places,
    note: Callable[[StageJob, ProgressLine], None],
) -> list[Record]:
    return train_recipe(
        recipe,
        base=base,
        train=data[0],
        validation=data[1],
        stages_dir=places.stages_dir,
        cache=places.cache_dir,
        config=config,
        on_progress=note,
    )


def _trained(recipe: Recipe, stages: Callable[[], list[Record]], *, attempts: int = 2) -> Challenger:
    for attempt in range(1, attempts + 1):
        try:
            records = stages()
        except (UserError, Diverged) as error:  # another try would end in the same way
            log.error("%s cannot be trained: %s", recipe.name, error)
            return Challenger(recipe=recipe.name, error=str(error))
        except RatchetError as error:
            # Once more: it goes on from its last checkpoint, and a full disk or a killed process may be mended by then.
            log.error("%s failed (try %s of %s): %s", recipe.name, attempt, attempts, error)
            failure = str(error)
            continue
        found = zip(recipe.stages, records, strict=True)
        return Challenger(
            recipe=recipe.name,
            stages=tuple(
                TrainedStage(key=r.key, digest=r.digest, kind=r.result["kind"], objective=spec.objective)
                for spec, r in found
            ),
        )
    return Challenger(recipe=recipe.name, error=failure)


@task(name="checkpoint", task_run_name="checkpoint {named}", cache_policy=NO_CACHE)
def checkpoint(named: str, base: Base, places: Places) -> Challenger:
    """A kept checkpoint, named KEY:STEP, as a challenger; one that cannot be used is a challenger without weights.

    Recipes were trained by the time it is asked for, and are not lost to a mistyped name.
    """
    key, _, step = named.partition(":")
    try:
        record = make_version(places.stages_dir, key, int(step), base)
    except RatchetError as error:
        log.error("checkpoint %s cannot be examined: %s", named, error)
        return Challenger(recipe=f"{key[:12]}@{step}", error=str(error))
    spec, kind = record.config["spec"], record.result["kind"]
    stage = TrainedStage(key=record.key, digest=record.digest, kind=kind, objective=spec["objective"])
    return Challenger(recipe=f"{record.name.partition('/')[0]}@{step}", stages=(stage,))
