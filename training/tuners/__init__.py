"""Register the tuners: which weights move. One file and one line in `TUNERS` for each.

A tuner's file is light to import (no torch): what needs torch or peft is imported inside its functions.
"""

from __future__ import annotations

from infra.registry import Registry
from training.tuners.tuner import ModelShape, Tuner

__all__ = ["TUNERS", "ModelShape", "Tuner", "tuner_named"]

TUNERS = Registry(
    "tuners",
    "tuner",
    {
        "full": "training.tuners.full",
        "lora": "training.tuners.lora",
        "qlora": "training.tuners.qlora",
        "dora": "training.tuners.dora",
        "lora_fa": "training.tuners.lora_fa",
        "vera": "training.tuners.vera",
        "adalora": "training.tuners.adalora",
        "ia3": "training.tuners.ia3",
        "bottleneck": "training.tuners.bottleneck",
        "prefix": "training.tuners.prefix",
        "prompt": "training.tuners.prompt",
    },
    attribute="TUNER",
    of=Tuner,
)
"""Name -> module that defines `TUNER`."""

tuner_named = TUNERS.named
