"""Register the training engines: who computes a stage. One file and one line in `TRAINING_ENGINES` for each."""

from __future__ import annotations

from infra.registry import Registry
from training.engines.engine import TrainingEngine

__all__ = ["TRAINING_ENGINES", "TrainingEngine"]

TRAINING_ENGINES = Registry(
    "training_engines",
    "training engine",
    {"native": "training.engines.native.engine"},
    attribute="ENGINE",
    of=TrainingEngine,
)
"""Name -> module that defines `ENGINE`."""
