"""Train a whole recipe: its stages one after another, each from the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from infra.artifact import Record
from infra.processes.progress import FILE, ProgressLine, read_progress
from training.base_model import Base
from training.hardware import memory_each
from training.objectives import objective_named
from training.recipes.memory_fit import processes_for as processes_for
from training.recipes.plan import TrainingConfig
from training.recipes.recipe import Recipe, StageSpec
from training.recipes.search import Search, search
from training.stages.job import Placement, StageInputs, StageJob, make_job
from training.stages.launch import launch_stage

OnStageProgress = Callable[[StageJob, ProgressLine], None]


def train_recipe(
    recipe: Recipe,
    *,
    base: Base,
    train: Path,
    validation: Path,
    stages_dir: Path,
    cache: Path,
    config: TrainingConfig,
    on_progress: OnStageProgress = lambda job, line: None,
) -> list[Record]:
    """Train the recipe's stages in processes of their own; finished ones are not trained again.

    Args:
        train: JSONL of training examples; validation: likewise. Never gate items.
        on_progress: gets the job and each line of its progress.

    Returns:
        One record for each stage, in order; the last is the challenger's. Its folder is `stages_dir / record.key`.

    Raises:
        RatchetError: a stage failed.
    """
    records: list[Record] = []
    inputs = StageInputs(base=base, train=train, validation=validation, replay=config.replay)
    for index, spec in enumerate(recipe.stages):

        def job_of(spec: StageSpec, index: int = index, inputs: StageInputs = inputs) -> StageJob:
            processes = processes_for(spec, config.processes)
            placement = Placement(
                stages_dir=stages_dir,
                cache=cache,
                threads=config.threads,
                checkpoint_seconds=config.checkpoint_seconds,
                memory=memory_each(processes, given_gb=config.memory_gb),
            )
            return make_job(
                spec,
                inputs,
                placement,
                label=f"{recipe.name}/{index + 1}-{spec.objective}",
                engine=config.engine,
                seed=config.seed,
                dtype=None if config.dtype == "auto" else config.dtype,
                world_size=processes,
            )

        if recipe.search is not None and recipe.search.stage == index + 1:
            record = _searched(recipe.search, spec, job_of, config.seed, on_progress)
        else:
            record = _launched(job_of(spec), on_progress)
        records.append(record)
        if objective_named(spec.objective).product == "reward":
            inputs = replace(inputs, reward=record)
        else:
            inputs = replace(inputs, previous=record)
    return records


def _launched(job: StageJob, on_progress: OnStageProgress) -> Record:
    return launch_stage(job, lambda line: on_progress(job, line))


def _searched(
    plan: Search,
    spec: StageSpec,
    job_of: Callable[[StageSpec], StageJob],
    seed: int,
    on_progress: OnStageProgress,
) -> Record:
    """The best trial of a search; only its curve is passed on."""
    best, record = search(plan, spec, lambda trial, watch: launch_stage(job_of(trial), watch), seed=seed)
    job = job_of(best)
    for line in read_progress(job.final / FILE):
        on_progress(job, line)
    return record
