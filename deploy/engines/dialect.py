"""Describe what differs between serving engines: their limits, tolerances and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tolerances:
    """What a parity check allows an engine's rounding."""

    effect: float
    """Relative error of a version's effect."""
    base: float
    """Root mean square difference of the base, in nats a token."""


@dataclass(frozen=True)
class Dialect:
    """What differs between serving engines.

    Tolerances are calibrated by benchmarks/parity.py on LoRA of the 135M model: two adapters that differ by the seed of
    training alone are 0.26 apart, so what is allowed must stay well below that; vLLM's own error in bfloat16 was 0.097,
    its base 0.085 nats off, and in float32 both were nothing.
    """

    name: str
    refuses: Callable[[Path], str | None]
    """Why a weights folder cannot be loaded by this engine; None when it can."""
    lora_only: bool
    """Whether it loads plain LoRA adapters only: recipes that make anything else are left out."""
    unload_waits: bool
    """Whether an unload can be told how long to wait for answers that still run."""
    probe_tokens: int
    """`max_tokens` of a request that only wants prompt log-probabilities."""
    already_loaded: Callable[[int, str], bool]
    """Whether an error (status, message) only says that the name is loaded already."""
    float32: Tolerances
    """Tolerances for what was recorded in float32."""
    low_precision: Tolerances
    """Tolerances for what was recorded in any other dtype."""

    def tolerances(self, dtype: str) -> Tolerances:
        """Return what is allowed for log-probabilities that were recorded in `dtype`."""
        return self.float32 if dtype == "float32" else self.low_precision


EMBEDDED = Dialect(
    name="embedded",
    refuses=lambda path: None,
    lora_only=False,
    unload_waits=True,
    probe_tokens=0,
    already_loaded=lambda status, message: False,
    float32=Tolerances(effect=0.02, base=0.005),
    low_precision=Tolerances(effect=0.05, base=0.1),
)
