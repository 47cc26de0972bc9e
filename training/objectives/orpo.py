"""Odds ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691): sft and preference in one, no reference.

L = -mean log p(chosen) - lambda log sigmoid(log odds(chosen) - log odds(rejected)), odds = P / (1 - P) with P the
geometric mean of an answer's token probabilities (equations 4 to 7).
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


class OrpoOptions(Config):
    """Options of orpo."""

    weight: float = Field(default=0.1, gt=0)
    """The paper's lambda: weight of the odds ratio beside the cross-entropy."""


def loss(scored: LossInputs, options: OrpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the chosen answer plus the weighted odds-ratio term."""
    import torch
    from torch.nn.functional import logsigmoid

    mean = scored.logps / scored.counts
    # log(1 - e^x) for x < 0 without cancellation; x = 0 only where an answer is certain to the last bit.
    log_odds = mean - torch.log(-torch.expm1(mean.clamp(max=-1e-7)))
    margin = log_odds[:, 0] - log_odds[:, 1]
    losses = -mean[:, 0] - options.weight * logsigmoid(margin)
    return (losses * scored.weight).sum(), {"preferred": float((margin.detach() > 0).float().sum())}


def epochs(examples: int) -> float:
    """As for sft, which it includes."""
    return 3 if examples <= 100 else 2 if examples <= 5_000 else 1


OBJECTIVE = Objective(
    name="orpo",
    summary="learn the better answer and push the worse away in one stage (Hong et al. 2024)",
    shapes=("preference",),
    options=OrpoOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    dropout=False,
    lr_multiplier_vs_sft=0.5,
    cost=2.0,
)
