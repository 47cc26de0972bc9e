"""Take dropout and other noise of training out of a model, for losses that compare log-probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_NOISE = ("drop", "jitter")
"""Parts of the names under which modules keep rates of noise: attention_dropout, layerdrop, jitter_noise."""


def without_dropout(model: torch.nn.Module) -> None:
    """Set every rate of noise in `model` and in its adapters to 0, for good: in training it then computes what it
    computes in evaluation.

    It stays in training mode, which other things hang on (gradient checkpointing, what a tuner does while it trains).
    The config, which is saved with the weights, stays as it is.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and any(part in name for part in _NOISE):
                setattr(module, name, 0.0)
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.ModuleDict):  # an adapter's, one for each adapter; with none in it LoRA is fused
            _plain(module)


def _plain(layers: Any) -> None:
    for name, layer in layers.items():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layers[name] = nn.Identity()
