"""Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300): reinforcement fine-tuning with graders.

Several answers to each problem are drawn and graded; an answer is pushed up as far as it is better than its group. No
value function. The loss is equation 3 with its clipped ratio and its unbiased KL estimate (equation 4) to the weights
that the stage starts from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from training.engines.native.online.advantages import SamplingOptions, encode_prompt, group_advantages, one_per_prompt
from training.objectives.objective import Objective, Online

if TYPE_CHECKING:
    import torch

    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class GrpoOptions(SamplingOptions):
    """Options of grpo."""

    group: int = Field(default=8, ge=2, le=256)
    """Answers to each problem."""
    beta: float = Field(default=0.04, ge=0)
    """Weight of the KL term; 0 leaves it out, and its pass through the model."""
    scale: bool = True
    """Whether advantages are divided by the group's standard deviation (no: Liu et al. 2025, "Dr. GRPO")."""
    average: Literal["answer", "token"] = "answer"
    """answer: every answer weighs the same, as in the paper. token: every token does (Yu et al. 2025, "DAPO")."""


def collect(rollouts: Rollouts, items: Sequence[Item], options: GrpoOptions) -> list[Item]:
    """Collect answers with their advantage on every token."""
    answers = rollouts.sample(items, options.group, options.max_new_tokens)
    grades = rollouts.grade(items, answers)
    made = []
    for item, group, rewards in zip(items, answers, grades, strict=True):
        for answer, advantage in zip(group, group_advantages(rewards, scale=options.scale), strict=True):
            made.append(rollouts.whole(item, answer, advantage=[advantage] * len(answer.ids)))
    rollouts.note("undecided", [float(max(rewards) == min(rewards)) for rewards in grades])
    return rollouts.scorer.with_logps(made, now=options.updates > 1, start=options.beta > 0)


def held_out(rollouts: Rollouts, items: Sequence[Item], options: SamplingOptions) -> tuple[float, dict[str, float]]:
    """Measure the mean grade of greedy answers to held-out prompts, negated: less is better."""
    answers = rollouts.sample(items, 1, options.max_new_tokens)
    grades = [grade for group in rollouts.grade(items, answers) for grade in group]
    reward = sum(grades) / len(grades)
    return -reward, {"reward": reward}


def loss(scored: LossInputs, options: GrpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-(min(ratio A, clip(ratio) A) - beta KL) for each token; averaged over an answer's tokens, then over answers."""
    import torch

    logps = scored.token_logps
    advantage = scored.columns["advantage"]
    ratio = torch.exp(logps - scored.columns.get("old", logps.detach()))
    clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
    losses = -torch.minimum(ratio * advantage, clipped * advantage)
    seen = {}
    per_token = 1 / scored.counts[scored.item_of_token, 0]
    if options.beta:
        gap = scored.columns["start"] - logps
        kl = torch.exp(gap) - gap - 1
        losses = losses + options.beta * kl
        seen["kl"] = float((kl.detach() * per_token).sum())
    if options.average == "answer":
        losses = losses * per_token
    return losses.sum(), seen


def normalizer(scored: LossInputs) -> torch.Tensor:
    """Count the answers. (Of tokens, where every token weighs the same, see `count_tokens`.)"""
    return scored.counts.new_tensor(float(len(scored.counts)))


def count_tokens(scored: LossInputs) -> torch.Tensor:
    """Count the tokens."""
    return scored.counts.sum()


def variant(objective: Objective, options: GrpoOptions) -> Objective:
    """Choose the normalizer that the options ask for."""
    from dataclasses import replace

    return objective if options.average == "answer" else replace(objective, normalizer=count_tokens)


def epochs(examples: int) -> float:
    """Two passes over few problems, one otherwise: each pass draws new answers, so more does not overfit at once."""
    return 2 if examples <= 500 else 1


OBJECTIVE = Objective(
    name="grpo",
    summary="reinforcement: more of the answers that graders find better than their group (Shao et al. 2024)",
    shapes=("problem",),
    rewarded_shapes=("preference", "completion", "rated"),
    options=GrpoOptions,
    encode=encode_prompt,
    arrange=one_per_prompt,
    loss=loss,
    normalizer=normalizer,
    variant=variant,
    epochs=epochs,
    online=Online(collect=collect, held_out=held_out, updates=lambda options: int(options.updates)),
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=30.0,
)
