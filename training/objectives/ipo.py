"""Identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, equation 17): DPO without its overconfidence.

The squared distance of the preference's margin from 1 / (2 beta): once a pair is told apart by that much it pulls no
more. Log-probabilities are averaged over tokens, as TRL does after the authors' advice, so that length plays no part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.dpo import encode, epochs
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from training.engines.native.packing.batch import LossInputs


class IpoOptions(Config):
    """Options of ipo."""

    beta: float = Field(default=0.1, gt=0)
    """The margin aimed at is 1 / (2 beta)."""


def loss(scored: LossInputs, options: IpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """(h - 1 / (2 beta))^2, h = mean log(pi/ref)(chosen) - mean log(pi/ref)(rejected)."""
    ratios = (scored.logps - scored.reference) / scored.counts
    margin = ratios[:, 0] - ratios[:, 1]
    losses = (margin - 1 / (2 * options.beta)) ** 2
    return (losses * scored.weight).sum(), {
        "preferred": float((margin.detach() > 0).float().sum()),
        "margin": float(margin.detach().sum()),
    }


OBJECTIVE = Objective(
    name="ipo",
    summary="prefer the better of two answers by a set margin and no more (Azar et al. 2023)",
    shapes=("preference",),
    options=IpoOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    reference=True,
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=3.0,
)
