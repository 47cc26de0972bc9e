"""Find a tuner by the kind of adapter that it saves, in peft's words."""

from __future__ import annotations

from training.tuners import TUNERS
from training.tuners.tuner import Tuner, VirtualTokens


def tuner_of_kind(peft_type: object) -> Tuner | None:
    """Find the first tuner that saves adapters of a kind; tuners of one kind are converted and served alike."""
    if peft_type is None:
        return None
    return next((tuner for tuner in map(TUNERS.named, TUNERS) if tuner.peft_type == peft_type), None)


def virtual_tokens_of(peft_type: object) -> VirtualTokens | None:
    """Tell what adapters of a kind put before the first token; None where they put nothing there."""
    tuner = tuner_of_kind(peft_type)
    return tuner.virtual_tokens if tuner is not None else None
