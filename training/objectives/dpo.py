"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

The reference is the model that the stage starts from, that is, the recipe's sft model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from infra.settings import Config
from training.objectives.objective import Objective

if TYPE_CHECKING:
    import torch

    from feedback.examples import Example
    from training.chat.template import Template
    from training.engines.native.packing.batch import LossInputs
    from training.engines.native.packing.items import Item


class DpoOptions(Config):
    """Options of dpo."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the reference holds the model: small lets it move far."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of preferences believed to be the wrong way round (Mitchell 2023, "conservative DPO")."""


def encode(example: Example, template: Template, options: object) -> list[Item]:
    """Make an item of the chosen and the rejected answer to the same prompt; loss on the answers only."""
    from training.chat.template import messages_for_template
    from training.engines.native.packing.items import Item

    if not example.chosen or not example.rejected or example.chosen == example.rejected:
        return []
    messages = messages_for_template(example.messages)
    chosen = template.answer(messages, example.chosen, ended="chosen" not in example.cut)
    rejected = template.answer(messages, example.rejected, ended="rejected" not in example.cut)
    return [Item((chosen, rejected), example.weight)]


def loss(scored: LossInputs, options: DpoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """-log sigmoid(beta h), h = log(pi/ref)(chosen) - log(pi/ref)(rejected); smoothed by the flipped pair's."""
    from torch.nn.functional import logsigmoid

    margin = options.beta * (scored.logps - scored.reference) @ scored.logps.new_tensor([1.0, -1.0])
    smooth = options.label_smoothing
    losses = -(1 - smooth) * logsigmoid(margin) - smooth * logsigmoid(-margin)
    return (losses * scored.weight).sum(), {
        "preferred": float((margin.detach() > 0).float().sum()),
        "margin": float(margin.detach().sum()),
    }


def epochs(examples: int) -> float:
    """Two passes over few pairs, one otherwise: preference losses overfit fast (arXiv:2305.18290 trains one)."""
    return 2 if examples <= 200 else 1


OBJECTIVE = Objective(
    name="dpo",
    summary="prefer the better of two answers, held by the model it started from (Rafailov et al. 2023)",
    shapes=("preference",),
    options=DpoOptions,
    encode=encode,
    loss=loss,
    epochs=epochs,
    sequences=2,
    reference=True,
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=3.0,
)
