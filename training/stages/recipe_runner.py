"""Train a whole recipe: its stages one after another, each from the one before."""

from __future__ import annotations

from collections.abc import Callable
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
from training.stages.job import StageJob, make_job
from training.stages.launch import launch_stage


def train_recipe(
    recipe: Recipe,
    *,
    base: Base,
    train: Path,
    validation: Path,
    stages_dir: Path,
    cache: Path,
    config: TrainingConfig,
    on_progress: Callable[[StageJob, ProgressLine], None] = lambda job, line: None,
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
    policy: Record | None = None
    reward: Record | None = None
    for index, spec in enumerate(recipe.stages):

        def job_of(asked: StageSpec, index: int = index, policy: Record | None = policy) -> StageJob:
            processes = processes_for(asked, config.processes)
            return make_job(
                asked,
                label=f"{recipe.name}/{index + 1}-{asked.objective}",
                base=base,
                train=train,
                validation=validation,
                stages_dir=stages_dir,
                cache=cache,
                previous=policy,
                reward=reward,  # noqa: B023  # used within this turn of the loop only
                replay=config.replay,
                seed=config.seed,
                dtype=None if config.dtype == "auto" else config.dtype,
                threads=config.threads,
                world_size=processes,
                checkpoint_seconds=config.checkpoint_seconds,
                memory=memory_each(processes, given_gb=config.memory_gb),
            )

        if recipe.search is not None and recipe.search.stage == index + 1:
            records.append(_searched(recipe.search, spec, job_of, config.seed, on_progress))
        else:
            job = job_of(spec)
            records.append(launch_stage(job, lambda line, job=job: on_progress(job, line)))  # type: ignore[misc]
        if objective_named(spec.objective).product == "reward":
            reward = records[-1]
        else:
            policy = records[-1]
    return records


def _searched(
    asked: Search,
    spec: StageSpec,
    job_of: Callable[[StageSpec], StageJob],
    seed: int,
    on_progress: Callable[[StageJob, ProgressLine], None],
) -> Record:
    """The best trial of a search; only its curve is told."""
    best, record = search(asked, spec, lambda one, watch: launch_stage(job_of(one), watch), seed=seed)
    job = job_of(best)
    for line in read_progress(job.final / FILE):
        on_progress(job, line)
    return record
