"""From a plan to challengers: each recipe trained, its curves on MLflow, its progress in Prefect."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.engines import SERVING_ENGINES
from deploy.nights.challenger import Challenger, TrainedStage
from infra.artifact import Record
from infra.errors import Diverged, RatchetError, UserError
from infra.processes.progress import ProgressLine
from infra.settings import Places
from infra.telemetry.mlflow_operations import Point
from infra.telemetry.mlflow_tracker import Tracker
from tasks.progress_bar import ProgressBar
from training.base_model import Base, resolve_base
from training.recipes.memory import shape_of_folder
from training.recipes.memory_fit import room_here
from training.recipes.plan import Plan, TrainingConfig, plan_night
from training.recipes.recipe import Recipe
from training.stages.checkpoints import FOLDER, make_version
from training.stages.job import StageJob
from training.stages.recipe_runner import train_recipe

log = logging.getLogger(__name__)


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
    diary = TrainingDiary(tracker, night_key, recipe)
    diary.open()
    challenger = _trained(recipe, lambda: _stages(recipe, base, data, config, places, diary.note))
    diary.close(challenger, places.stages_dir)
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


class TrainingDiary:
    """Writes a challenger's training to MLflow (curves, parameters, records) and a progress bar to Prefect."""

    def __init__(self, tracker: Tracker, night_key: str, recipe: Recipe, *, every_seconds: float = 3.0) -> None:
        self.tracker = tracker
        self.night_key = night_key
        self.recipe = recipe
        self.key = f"{night_key}/{recipe.name}"
        self.every_seconds = every_seconds
        self.job: StageJob | None = None
        self.points: list[Point] = []
        self.written = time.monotonic()
        self.bar = ProgressBar(recipe.name)

    def open(self) -> None:
        """Open the challenger's run, nested in the night's."""
        tags = {"ratchet.recipe": self.recipe.name, "ratchet.kind": "challenger"}
        self.tracker.run(self.key, name=self.recipe.name, parent=self.night_key, tags=tags)

    def note(self, job: StageJob, line: ProgressLine) -> None:
        """Keep one line of a stage's progress."""
        if self.job is None or self.job.key != job.key:
            self._next_stage(job)
        at = int(time.time() * 1000)
        for name in ("loss", "eval_loss", "lr", "tokens", "seconds"):
            value = getattr(line, name)
            if value is not None:
                self.points.append(Point(name=name, value=float(value), step=line.done, at_ms=at))
        if time.monotonic() - self.written > self.every_seconds or line.done >= line.total:
            self._write()
            self.bar.show(line)

    def close(self, challenger: Challenger, stages_dir: Path) -> None:
        """Attach what every stage made, and end the runs."""
        self._write()
        for index, stage in enumerate(challenger.stages):
            key = self._stage_key(index, stage.objective)
            self.tracker.run(key, name=f"{self.recipe.name}: {stage.objective}", parent=self.key)
            self.tracker.tags(key, {"ratchet.stage_key": stage.key, "ratchet.version": stage.version})
            self.tracker.artifact(key, stages_dir / stage.key / "record.json")
            if (stages_dir / stage.key / FOLDER).is_dir():
                self.tracker.artifact(key, stages_dir / stage.key / FOLDER, FOLDER)
            self.tracker.finish(key)
        if challenger.stages:
            last = challenger.stages[-1]
            self.tracker.tags(self.key, {"ratchet.version": last.version})
            if last.kind == "adapter":
                told = {"recipe": self.recipe.name, "digest": last.digest, "objective": last.objective}
                self.tracker.model(self.key, version=last.version, path=stages_dir / last.key / "adapter", params=told)
        if challenger.error is not None:
            self.tracker.tags(self.key, {"ratchet.error": challenger.error[:4000]})
        self.tracker.finish(self.key, "FAILED" if challenger.error else "FINISHED")

    def _next_stage(self, job: StageJob) -> None:
        self._write()
        self.job = job
        key = self._key_of(job)
        self.tracker.run(key, name=f"{self.recipe.name}: {job.spec.objective}", parent=self.key)
        self.tracker.params(key, {**job.spec.model_dump(mode="json"), "seed": job.seed, "dtype": job.dtype})
        rows = {"train": 0}
        self.tracker.dataset(
            key, name="train", digest=job.train_digest, source=str(job.train), context="training", rows=rows
        )
        log.info("training %s", job.label)
        self.bar = ProgressBar(job.label)

    def _write(self) -> None:
        if self.job is not None and self.points:
            self.tracker.points(self._key_of(self.job), self.points)
        self.points, self.written = [], time.monotonic()

    def _key_of(self, job: StageJob) -> str:
        index = int(job.label.rsplit("/", 1)[1].split("-", 1)[0]) - 1
        return self._stage_key(index, job.spec.objective)

    def _stage_key(self, index: int, objective: str) -> str:
        return f"{self.key}/{index + 1}-{objective}"
