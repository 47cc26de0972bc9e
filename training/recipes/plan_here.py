"""Plan a night's recipes for this machine's memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from infra.errors import UserError
from training.base_model import Base
from training.recipes.memory import shape_of_folder
from training.recipes.memory_fit import room_here
from training.recipes.plan import Plan, TrainingConfig, plan_night

log = logging.getLogger(__name__)


def plan_here(
    counts: Mapping[str, int], config: TrainingConfig, base: Base, *, lora_only: bool, cache: Path | None
) -> Plan:
    """Choose the recipes that tonight's data, budget and this machine's memory support, and log those left out.

    Args:
        counts: training examples by shape in the snapshot.
        lora_only: whether the serving engine loads nothing but LoRA.
        cache: where measured memory is kept.
    """
    try:
        shape = shape_of_folder(base.path)
    except UserError as error:  # each recipe would fail with it, and say so; nothing can be reckoned without it
        log.warning("memory and minutes are planned without the base model's size: %s", error)
        plan = plan_night(counts, config, lora_only=lora_only)
    else:
        room = room_here(shape, dtype=config.dtype, processes=config.processes, memory_gb=config.memory_gb, cache=cache)
        plan = plan_night(counts, config, parameters=shape.total, lora_only=lora_only, room=room)
    for left in plan.left_out:
        log.info("not tonight: %s: %s", left.recipe, left.reason)
    return plan
