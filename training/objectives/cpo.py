"""Contrastive preference optimisation (Xu et al. 2024, arXiv:2401.08417): DPO without a reference, beside the
cross-entropy of the better answer (equation 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.dpo import encode, epochs
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from training.engines.native.packing.batch import LossInputs


class CpoOptions(Config):
    """Options of cpo."""

    beta: float = Field(default=0.1, gt=0)
    """How steeply the preference is judged."""
    imitate: float = Field(default=1.0, ge=0)
    """Weight of the better answer's cross-entropy."""


def loss(scored: LossInputs, options: CpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-log sigmoid(beta (log pi(chosen) - log pi(rejected))) + imitate x mean -log pi(chosen), over its tokens."""
    from torch.nn.functional import logsigmoid

    margin = options.beta * (scored.logps[:, 0] - scored.logps[:, 1])
    losses = -logsigmoid(margin) - options.imitate * scored.logps[:, 0] / scored.counts[:, 0]
    return (losses * scored.weight).sum(), {
        "preferred": float((margin.detach() > 0).float().sum()),
        "margin": float(margin.detach().sum()),
    }


OBJECTIVE = Objective(
    name="cpo",
    summary="prefer the better of two answers while learning it, without a reference (Xu et al. 2024)",
    shapes=("preference",),
    options=CpoOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=2.0,
)
