"""Compute advantages as plain arithmetic; with the options that all objectives that sample share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from infra.settings import Config
from training.graders.grader import Problem
from training.graders.grading import check_name

if TYPE_CHECKING:
    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.packing.items import Item


class SamplingOptions(Config):
    """Options of every objective that samples. Answers are drawn at temperature 1, from the whole distribution: the one
    whose log-probabilities the loss takes."""

    max_new_tokens: int = Field(default=256, ge=1)
    """Longest answer in tokens."""
    updates: int = Field(default=1, ge=1, le=16)
    """Optimizer steps made of one set of answers."""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """How far a token's probability may move from what it was when it was drawn (as a ratio from 1) before it stops
    being pushed further."""
    grader: str | None = None
    """Grader of all answers: a name from `ratchet methods`, or python:package.module:function for your own, called
    with (answer, reference). Default: the one each problem names, or by the look of its reference. A recipe with a
    reward stage grades with that."""
    grader_seconds: float = Field(default=5.0, gt=0)
    """Time limit of a grader for one answer; an answer it fails on counts 0 and is counted."""

    @field_validator("grader")
    @classmethod
    def _known_grader(cls, value: str | None) -> str | None:
        return None if value is None else check_name(value)


def encode_prompt(example: Example, template: Template, options: Any) -> list[Item]:
    """Make an item of the prompt, and in a note what its answers are graded by.

    Raises:
        Unlearnable: the problem names a grader that does not exist.
    """
    from training.chat.template import Tokens, Unlearnable, messages_for_template
    from training.engines.native.packing.items import Item
    from training.graders import GRADERS, grader_for

    if not example.messages:
        return []
    if example.reference is not None and grader_for(example.grader, example.reference) is None:
        raise Unlearnable(f"its grader {example.grader!r} is none of {', '.join(GRADERS)}")
    messages = messages_for_template(example.messages)
    ids = template.prompt(messages)
    problem: Problem = {"reference": example.reference, "grader": example.grader, "messages": messages}
    return [Item((Tokens(ids, (False,) * len(ids)),), example.weight, note=json.dumps(problem))]


def one_per_prompt(items: list[Item], options: Any) -> list[Item]:
    """Keep each prompt once, a problem with a reference before the same prompt without one."""
    best: dict[tuple[int, ...], Item] = {}
    for item in items:
        known = best.get(item.sequences[0].ids)
        if known is None or (not has_reference(known) and has_reference(item)):
            best[item.sequences[0].ids] = item
    return list(best.values())


def has_reference(item: Item) -> bool:
    """Tell whether a prompt's answers can be graded without a reward model."""
    return json.loads(item.note)["reference"] is not None


def group_advantages(rewards: Sequence[float], *, scale: bool) -> list[float]:
    """Compute reward less the group's mean, over its standard deviation (Shao et al. 2024, arXiv:2402.03300, 4.1.2).

    The deviation is the sample's (n - 1), with 1e-4 added, as TRL computes it. `scale` False leaves it out (Liu et al.
    2025, arXiv:2503.20783: dividing by it favours questions that are nearly always, or nearly never, answered right).
    """
    mean = sum(rewards) / len(rewards)
    if not scale:
        return [reward - mean for reward in rewards]
    variance = sum((reward - mean) ** 2 for reward in rewards) / max(1, len(rewards) - 1)
    return [(reward - mean) / (math.sqrt(variance) + 1e-4) for reward in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """Compute reward less the mean of the others' (Ahmadian et al. 2024, arXiv:2402.14740, equation 6)."""
    total, count = sum(rewards), len(rewards)
    return [reward - (total - reward) / (count - 1) for reward in rewards]


def generalised_advantages(
    rewards: Sequence[float], values: Sequence[float], *, gamma: float, trace: float
) -> tuple[list[float], list[float]]:
    """Estimate generalised advantages over one answer (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    Args:
        rewards: one for each token; values: the value before each token; after the last it is 0, for the answer ends.
        gamma: discount; trace: the paper's lambda.

    Returns:
        Advantages, and returns (advantage plus value: what the value function is to learn).
    """
    advantages = [0.0] * len(rewards)
    after, following = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        surprise = rewards[t] + gamma * after - values[t]
        following = surprise + gamma * trace * following
        advantages[t] = following
        after = values[t]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def whitened(groups: Sequence[Sequence[float]]) -> list[list[float]]:
    """Whiten: shift and scale all numbers to mean 0 and variance 1 together, group by group in, group by group out."""
    everything = [x for group in groups for x in group]
    mean = sum(everything) / len(everything)
    variance = sum((x - mean) ** 2 for x in everything) / max(1, len(everything) - 1)
    return [[(x - mean) / math.sqrt(variance + 1e-8) for x in group] for group in groups]
