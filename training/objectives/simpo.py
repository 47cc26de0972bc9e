"""Simple preference optimisation (Meng et al. 2024, arXiv:2405.14734, equation 6): length-normalised, no reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.dpo import encode, epochs
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from training.engines.native.packing.batch import LossInputs


class SimpoOptions(Config):
    """Options of simpo."""

    beta: float = Field(default=2.0, gt=0)
    """How steeply the preference is judged; the paper uses 2 to 2.5, on averages per token."""
    margin: float = Field(default=1.0, ge=0)
    """The paper's gamma: by how much the better answer's reward is to lead."""


def loss(scored: LossInputs, options: SimpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-log sigmoid(beta (mean log pi(chosen) - mean log pi(rejected)) - margin)."""
    from torch.nn.functional import logsigmoid

    mean = scored.logps / scored.counts
    lead = options.beta * (mean[:, 0] - mean[:, 1])
    losses = -logsigmoid(lead - options.margin)
    return (losses * scored.weight).sum(), {
        "preferred": float((lead.detach() > 0).float().sum()),
        "margin": float(lead.detach().sum()),
    }


OBJECTIVE = Objective(
    name="simpo",
    summary="prefer the better of two answers by their mean log-probability (Meng et al. 2024)",
    shapes=("preference",),
    options=SimpoOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=2.0,
)
