"""LoRA-FA (Zhang et al. 2023, arXiv:2308.03303): LoRA whose random A stays as it was drawn; only B moves.

Half the trained weights, and no activations kept for A's gradient. What it saves is plain LoRA.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class LoraFaOptions(Config):
    """Options of LoRA-FA."""

    rank: int = Field(default=32, ge=1, le=1024)
    """Rank; more than for LoRA, since only B moves. Left out of a recipe: by the amount of data."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale: the update is multiplied by alpha / r. Default: 2 r."""


def attach(model: Any, options: LoraFaOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default" and freeze A."""
    from training.tuners.attach import attach_lora

    return freeze(attach_lora(model, options))


def freeze(model: Any) -> Any:
    """Keep every A as it is."""
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return model


def parameters(shape: ModelShape, options: LoraFaOptions) -> int:
    """r outputs for each linear layer."""
    return sum(options.rank * outputs for _, _, outputs in shape.linears)


def saved(shape: ModelShape, options: LoraFaOptions) -> int:
    """Both matrices: A is not trained, but engines need it."""
    return sum(options.rank * (inputs + outputs) for _, inputs, outputs in shape.linears)


TUNER = Tuner(
    name="lora_fa",
    summary="LoRA with its first matrix frozen as drawn: half the trained weights (Zhang et al. 2023)",
    options=LoraFaOptions,
    attach=attach,
    parameters=parameters,
    peft_type="LORA",
    saves_plain_lora=True,
    rank_bounds=(16, 128),
    saved=saved,
    resume=freeze,
)
