"""Full fine-tuning: every weight moves, the whole model is saved."""

from __future__ import annotations

from typing import Any

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class FullOptions(Config):
    """Full fine-tuning has no options of its own."""


def attach(model: Any, options: FullOptions, base_name: str) -> Any:
    """Mark every weight as trained."""
    return model.requires_grad_(True)


def parameters(shape: ModelShape, options: FullOptions) -> int:
    """All of them."""
    return shape.total


TUNER = Tuner(
    name="full",
    summary="every weight moves; the most capacity and the most memory",
    options=FullOptions,
    attach=attach,
    parameters=parameters,
    saves="model",
    served="model",
    lr_multiplier_vs_full=1.0,
    cost=1.6,
    learning_rates=(1e-5, 1e-4),
    merges=False,
)
