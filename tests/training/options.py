"""Options with which each objective can train on the small set of examples in no time."""

from __future__ import annotations

from collections.abc import Mapping

OWN = "python:tests.training.own_graders:early_letters"

QUICK: Mapping[str, Mapping[str, bool | int | float | str]] = {
    "grpo": {"group": 3, "max_new_tokens": 6, "grader": OWN},
    "rloo": {"group": 2, "max_new_tokens": 6, "grader": OWN},
    "ppo": {"max_new_tokens": 6, "updates": 2},
    "distill": {"system": "You sort tickets. Answer with JSON only.", "max_new_tokens": 6},
}
