"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306): thumbs, with no need of pairs.

The reference point z0 is the KL of the model from the reference, estimated as in the paper's section 4.1 from
mismatched pairs (the prompt of one example with the answer of another), averaged over the whole optimizer step, not
differentiated, never below 0.
"""

from __future__ import annotations

from dataclasses import replace
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


class KtoOptions(Config):
    """Options of kto."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the reference holds the model."""
    balance: bool = True
    """Weigh the rarer of good and bad up, so that both weigh the same in all (the paper asks for a ratio of their
    weights between 1 and 4/3)."""


def encode(example: Example, template: Template, options: KtoOptions) -> list[Item]:
    """Make an item of the answer that was rated."""
    from training.chat.template import messages_for_template
    from training.engines.native.packing.items import Item

    if not example.completion or example.good is None:
        return []
    ended = "completion" not in example.cut
    answer = template.answer(messages_for_template(example.messages), example.completion, ended=ended)
    return [Item((answer,), example.weight, example.good)]


def arrange(items: list[Item], options: KtoOptions) -> list[Item]:
    """Give every item the answer of the next one as its mismatched sequence, and balance good against bad."""
    from training.chat.template import Tokens

    good = sum(item.good for item in items)
    bad = len(items) - good
    up = {True: 1.0, False: 1.0}
    if options.balance and good and bad:
        up = {True: max(1.0, bad / good), False: max(1.0, good / bad)}
    arranged = []
    for index, item in enumerate(items):
        other = items[(index + 1) % len(items)].sequences[0]
        own = item.sequences[0]
        answer = other.ids[other.start :]
        mismatched = Tokens(own.ids[: own.start] + answer, (*([False] * own.start), *([True] * len(answer))))
        arranged.append(replace(item, sequences=(own, mismatched), weight=item.weight * up[item.good]))
    return arranged


def loss(scored: LossInputs, options: KtoOptions) -> tuple[torch.Tensor, dict[str, float]]:
    """1 - sigmoid(beta (h - z0)) for good answers, 1 - sigmoid(beta (z0 - h)) for bad ones, h = log(pi/ref)."""
    import torch

    ratio = scored.logps[:, 0] - scored.reference[:, 0]
    z0 = (scored.no_grad_logps - scored.no_grad_reference).mean().clamp(min=0)
    sign = torch.where(scored.good, 1.0, -1.0)
    losses = 1 - torch.sigmoid(options.beta * sign * (ratio - z0))
    return (losses * scored.weight).sum(), {
        "kl": float(z0) * len(losses),
        "right_way": float((sign * ratio.detach() > 0).float().sum()),
    }


def normalizer(scored: LossInputs) -> torch.Tensor:
    """Count the examples (not their weights: the paper's mean is over examples)."""
    return scored.weight.new_tensor(float(len(scored.weight)))


def epochs(examples: int) -> float:
    """Two passes over few ratings, one otherwise (the paper trains one)."""
    return 2 if examples <= 400 else 1


OBJECTIVE = Objective(
    name="kto",
    summary="more of what got a thumb up, less of what got one down (Ethayarajh et al. 2024)",
    shapes=("rated",),
    options=KtoOptions,
    encode=encode,
    loss=loss,
    normalizer=normalizer,
    arrange=arrange,
    epochs=epochs,
    sequences=2,
    no_grad_sequences=(1,),
    reference=True,
    dropout=False,
    lr_multiplier_vs_sft=0.1,
    cost=2.0,
)
