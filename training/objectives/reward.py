"""A reward model from preferences (Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, equation 1).

A scalar head on the hidden state of an answer's last token; the better answer of a pair is to score higher. What comes
out scores answers and gives none: it is no challenger, but what the recipe's next stage is optimised against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.dpo import encode
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from training.engines.native.packing.batch import LossInputs


class RewardOptions(Config):
    """Options of reward."""

    centre: float = Field(default=0.01, ge=0)
    """Weight of a term that holds the scores of a pair around 0 (Eisenstein et al. 2023, arXiv:2312.09244)."""


def loss(scored: LossInputs, options: RewardOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-log sigmoid(score(chosen) - score(rejected)) + centre (score(chosen) + score(rejected))^2."""
    from torch.nn.functional import logsigmoid

    margin = scored.scores[:, 0] - scored.scores[:, 1]
    losses = -logsigmoid(margin) + options.centre * scored.scores.sum(1) ** 2
    return (losses * scored.weight).sum(), {
        "preferred": float((margin.detach() > 0).float().sum()),
        "margin": float(margin.detach().sum()),
    }


def epochs(examples: int) -> float:
    """One pass, two over few pairs: reward models overfit in the second (Ouyang et al. 2022, appendix C.2)."""
    return 2 if examples <= 500 else 1


OBJECTIVE = Objective(
    name="reward",
    summary="learn to score answers as people prefer them (Bradley-Terry; Ouyang et al. 2022)",
    shapes=("preference",),
    options=RewardOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    reads=frozenset({"score"}),
    product="reward",
    dropout=False,
    lr_multiplier_vs_sft=0.2,
    cost=2.0,
)
