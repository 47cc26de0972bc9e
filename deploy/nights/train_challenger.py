"""Make challengers: train a recipe's stages, or take a kept checkpoint. A failure is a challenger without weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.nights.challenger import Challenger, TrainedStage
from infra.artifact import Record
from infra.errors import Diverged, RatchetError, UserError
from training.base_model import Base
from training.recipes.recipe import Recipe
from training.stages.checkpoints import make_version
from training.stages.result import StageConfig, StageResult

log = logging.getLogger(__name__)


def train_challenger(recipe: Recipe, train: Callable[[], Sequence[Record]], *, attempts: int = 2) -> Challenger:
    """Train a recipe, again after a failure that may pass.

    Args:
        train: trains all stages of the recipe, or goes on with them from their last checkpoints.
    """
    failure = "not tried"
    for attempt in range(1, attempts + 1):
        try:
            records = train()
        except (UserError, Diverged) as error:  # another try would end in the same way
            log.error("%s cannot be trained: %s", recipe.name, error)
            return Challenger(recipe=recipe.name, error=str(error))
        except RatchetError as error:
            # Once more: it goes on from its last checkpoint, and a full disk or a killed process may be mended by then.
            log.error("%s failed (try %s of %s): %s", recipe.name, attempt, attempts, error)
            failure = str(error)
            continue
        stages = [_stage(record, spec.objective) for spec, record in zip(recipe.stages, records, strict=True)]
        return Challenger(recipe=recipe.name, stages=tuple(stages))
    return Challenger(recipe=recipe.name, error=failure)


def take_checkpoint(name: str, base: Base, stages_dir: Path) -> Challenger:
    """Make a challenger of a kept checkpoint, named KEY:STEP."""
    key, _, step = name.partition(":")
    try:
        record = make_version(stages_dir, key, int(step), base)
    except RatchetError as error:
        log.error("checkpoint %s cannot be examined: %s", name, error)
        return Challenger(recipe=f"{key[:12]}@{step}", error=str(error))
    stage = _stage(record, record.parse_config(StageConfig).spec.objective)
    return Challenger(recipe=f"{record.name.partition('/')[0]}@{step}", stages=(stage,))


def _stage(record: Record, objective: str) -> TrainedStage:
    kind = record.parse_result(StageResult).kind
    return TrainedStage(key=record.key, digest=record.digest, kind=kind, objective=objective)
