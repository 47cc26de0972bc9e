"""Train a whole recipe: its stages one after another, each from the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infra.artifact import Record
from training.base_model import Base
from training.job import StageJob, make_job
from training.launch import launch_stage
from training.objectives import objective_named
from training.plan import TrainingConfig
from training.recipe import Recipe


def train_recipe(
    recipe: Recipe,
    *,
    base: Base,
    train: Path,
    validation: Path,
    stages_dir: Path,
    cache: Path,
    config: TrainingConfig,
    on_progress: Callable[[StageJob, Mapping[str, Any]], None] = lambda job, line: None,
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
        job = make_job(
            spec,
            label=f"{recipe.name}/{index + 1}-{spec.objective}",
            base=base,
            train=train,
            validation=validation,
            stages_dir=stages_dir,
            cache=cache,
            previous=policy,
            reward=reward,
            replay=config.replay,
            seed=config.seed,
            dtype=None if config.dtype == "auto" else config.dtype,
            threads=config.threads,
            checkpoint_seconds=config.checkpoint_seconds,
        )

        def tell(line: Mapping[str, Any], job: StageJob = job) -> None:
            on_progress(job, line)

        records.append(launch_stage(job, tell))
        if objective_named(spec.objective).product == "reward":
            reward = records[-1]
        else:
            policy = records[-1]
    return records
