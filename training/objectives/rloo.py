"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv:2402.14740): RLHF without a value function.

The whole answer is one action. Its reward is the grade less beta times the log-ratio to the weights that the stage
starts from; its baseline the mean reward of the other answers to the same prompt. Loss as in TRL's RLOOTrainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from training.engines.native.online.advantages import SamplingOptions, encode_prompt, leave_one_out, one_per_prompt
from training.objectives.grpo import epochs, held_out, normalizer
from training.objectives.objective import Objective, Online

if TYPE_CHECKING:
    import torch

    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class RlooOptions(SamplingOptions):
    """Options of rloo."""

    group: int = Field(default=4, ge=2, le=256)
    """Answers to each prompt."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL penalty in the reward."""


def collect(rollouts: Rollouts, items: Sequence[Item], options: RlooOptions) -> list[Item]:
    """Collect answers with their advantage on every token."""
    answers = rollouts.sample(items, options.group, options.max_new_tokens)
    grades = rollouts.grade(items, answers)
    whole = [rollouts.whole(i, a) for i, group in zip(items, answers, strict=True) for a in group]
    scored = rollouts.scorer.with_logps(whole, now=True, start=options.beta > 0)
    made: list[Item] = []
    for rewards in grades:
        group = scored[len(made) : len(made) + len(rewards)]
        drifts = [_drift(item) for item in group]
        penalised = [r - options.beta * d for r, d in zip(rewards, drifts, strict=True)]
        for item, advantage in zip(group, leave_one_out(penalised), strict=True):
            made.append(_with_advantage(item, advantage))
        rollouts.note("kl", drifts)
    return made


def _drift(item: Item) -> float:
    """log(pi / start) of the whole answer."""
    if "start" not in item.columns:
        return 0.0
    return sum(item.columns["old"]) - sum(item.columns["start"])


def _with_advantage(item: Item, advantage: float) -> Item:
    from dataclasses import replace

    old = item.columns["old"]
    return replace(item, columns={"old": old, "advantage": (advantage,) * len(old)})


def loss(scored: LossInputs, options: RlooOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-min(ratio A, clip(ratio) A), the ratio that of the whole answer's probability."""
    import torch

    items = len(scored.counts)
    zero = scored.token_logps.new_zeros(items)
    old = zero.index_add(0, scored.item_of_token, scored.columns["old"])
    advantage = zero.index_add(0, scored.item_of_token, scored.columns["advantage"]) / scored.counts[:, 0]
    ratio = torch.exp(scored.logps[:, 0] - old)
    clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).sum(), {}


OBJECTIVE = Objective(
    name="rloo",
    summary="reinforcement with the other answers' mean as baseline (Ahmadian et al. 2024)",
    shapes=("problem",),
    rewarded_shapes=("preference", "completion", "rated"),
    options=RlooOptions,
    encode=encode_prompt,
    arrange=one_per_prompt,
    loss=loss,
    normalizer=normalizer,
    epochs=epochs,
    online=Online(collect=collect, held_out=held_out, updates=lambda options: int(options.updates)),
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=20.0,
)
