"""Register the objectives: what the loss asks. One file and one line in `OBJECTIVES` for each.

An objective turns an example into sequences (`encode`) and the model's log-probabilities of their tokens into a loss
(`loss`). Its file is light to import (no torch at the top).
"""

from __future__ import annotations

from infra.registry import Registry
from training.objectives.objective import Objective, Online

__all__ = ["OBJECTIVES", "Objective", "Online", "objective_named"]

OBJECTIVES = Registry(
    "objectives",
    "objective",
    {
        "sft": "training.objectives.sft",
        "dpo": "training.objectives.dpo",
        "kto": "training.objectives.kto",
        "ipo": "training.objectives.ipo",
        "orpo": "training.objectives.orpo",
        "pretraining": "training.objectives.pretraining",
        "simpo": "training.objectives.simpo",
        "cpo": "training.objectives.cpo",
        "reward": "training.objectives.reward",
        "ppo": "training.objectives.ppo",
        "rloo": "training.objectives.rloo",
        "grpo": "training.objectives.grpo",
        "distill": "training.objectives.distill",
    },
    attribute="OBJECTIVE",
    of=Objective,
)
"""Name -> module that defines `OBJECTIVE`."""

objective_named = OBJECTIVES.named
