"""Proximal policy optimisation for language models (Schulman et al. 2017, arXiv:1707.06347; Ouyang et al. 2022,
arXiv:2203.02155, section 3.5): RLHF with the recipe's reward model.

Every token is an action. The reward of each is -beta times its log-ratio to the weights that the stage starts from; the
last one's adds the answer's score. Advantages by generalised advantage estimation with a value head on the policy's own
hidden states. The clipped losses are those of TRL's PPO trainer before it was removed (Huang et al. 2024,
arXiv:2403.17031, lists the details).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from training.engines.native.online.advantages import (
    SamplingOptions,
    encode_prompt,
    generalised_advantages,
    one_per_prompt,
    whitened,
)
from training.objectives.grpo import count_tokens, epochs, held_out
from training.objectives.objective import Objective, Online

if TYPE_CHECKING:
    import torch

    from training.engines.native.online.rollouts import Rollouts
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class PpoOptions(SamplingOptions):
    """Options of ppo."""

    updates: int = Field(default=4, ge=1, le=16)
    """Optimizer steps made of one set of answers."""
    beta: float = Field(default=0.05, ge=0)
    """Weight of the KL penalty in the reward of each token."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount of later rewards."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""
    value_weight: float = Field(default=0.1, ge=0)
    """Weight of the value function's loss."""
    value_clip: float = Field(default=0.2, gt=0)
    """How far a value may move from what it was before it stops being pushed further."""
    unfinished_penalty: float = Field(default=1.0, ge=0)
    """Taken off the score of an answer that the limit of tokens cut off."""


def collect(rollouts: Rollouts, items: Sequence[Item], options: PpoOptions) -> list[Item]:
    """Collect one answer to each prompt, with old log-probability, old value, advantage and return of every token."""
    answers = rollouts.sample(items, 1, options.max_new_tokens)
    grades = rollouts.grade(items, answers)
    whole = [rollouts.whole(item, group[0]) for item, group in zip(items, answers, strict=True)]
    scored = rollouts.scorer.with_logps(whole, now=True, start=True)
    estimates, drifts = [], []
    for item, group, grade in zip(scored, answers, grades, strict=True):
        score = grade[0] - (0.0 if group[0].finished else options.unfinished_penalty)
        ratios = [old - start for old, start in zip(item.columns["old"], item.columns["start"], strict=True)]
        rewards = [-options.beta * ratio for ratio in ratios]
        rewards[-1] += score
        drifts.append(sum(ratios))
        estimates.append(
            generalised_advantages(rewards, item.columns["value"], gamma=options.gamma, trace=options.trace)
        )
    rollouts.note("kl", drifts)
    advantages = whitened([advantage for advantage, _ in estimates])
    return [
        _with_targets(item, advantage, returns)
        for item, advantage, (_, returns) in zip(scored, advantages, estimates, strict=True)
    ]


def _with_targets(item: Item, advantage: Sequence[float], returns: Sequence[float]) -> Item:
    from dataclasses import replace

    kept = {name: item.columns[name] for name in ("old", "value")}
    return replace(item, columns={**kept, "advantage": tuple(advantage), "return": tuple(returns)})


def loss(scored: LossInputs, options: PpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """max(-ratio A, -clip(ratio) A) + weight 1/2 max((V - R)^2, (clip(V) - R)^2), summed over tokens."""
    import torch

    known = scored.columns
    ratio = torch.exp(scored.token_logps - known["old"])
    clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
    policy = torch.maximum(-ratio * known["advantage"], -clipped * known["advantage"])
    near = known["value"] + (scored.values - known["value"]).clamp(-options.value_clip, options.value_clip)
    value = 0.5 * torch.maximum((scored.values - known["return"]) ** 2, (near - known["return"]) ** 2)
    share = 1 / scored.counts[scored.item_of_token, 0]
    moved = (ratio.detach() - 1).abs() > options.clip
    return (policy + options.value_weight * value).sum(), {
        "clipped": float((moved * share).sum()),
        "value_loss": float((value.detach() * share).sum()),
    }


OBJECTIVE = Objective(
    name="ppo",
    summary="reinforcement with a reward model and a value function (Ouyang et al. 2022)",
    shapes=("problem",),
    rewarded_shapes=("preference", "completion", "rated"),
    options=PpoOptions,
    encode=encode_prompt,
    arrange=one_per_prompt,
    loss=loss,
    normalizer=count_tokens,
    epochs=epochs,
    reads=frozenset({"values"}),
    online=Online(collect=collect, held_out=held_out, updates=lambda options: int(options.updates)),
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=20.0,
)
