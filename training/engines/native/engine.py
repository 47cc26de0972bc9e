"""Describe Ratchet's own training engine, which trains every objective with every tuner that can carry it."""

from __future__ import annotations

from training.engines.engine import TrainingEngine
from training.tuners import tuner_named

ENGINE = TrainingEngine(
    name="native",
    summary="Ratchet's own: packed rows on transformers' Trainer",
    version=4,
    module="training",
    refuses=lambda objective, tuner: tuner_named(tuner).refuses(objective),
)
