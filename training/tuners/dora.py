"""DoRA (Liu et al. 2024, arXiv:2402.09353): a weight is split into magnitude and direction, LoRA moves the latter.

W' = m (W + s B A) / ||W + s B A||, the norm taken over inputs for each output, m trained. Before training m = ||W|| and
B = 0, so the model is unchanged. Engines that know only LoRA cannot have it: the embedded one serves it merged.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class DoraOptions(Config):
    """Options of DoRA."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update of the direction. Left out of a recipe: by the amount of data."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale: the update is multiplied by alpha / r. Default: 2 r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before A. Off in objectives that compare log-probabilities (dpo, kto, grpo and their like)."""


def attach(model: Any, options: DoraOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from training.tuners.attach import attach_lora

    return attach_lora(model, options, use_dora=True)


def parameters(shape: ModelShape, options: DoraOptions) -> int:
    """r (inputs + outputs), and a magnitude for each output, for each linear layer."""
    return sum(options.rank * (inputs + outputs) + outputs for _, inputs, outputs in shape.linears)


TUNER = Tuner(
    name="dora",
    summary="LoRA for the direction of each weight, a trained magnitude beside it (Liu et al. 2024)",
    options=DoraOptions,
    attach=attach,
    parameters=parameters,
    peft_type="LORA",
    served="merged",
    rank_bounds=(4, 32),
    kept_outputs=2,  # the norm scales the base's output and the adapter's
    cost=1.8,
)
