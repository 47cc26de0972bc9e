"""Describe what differs between serving engines: their limits, tolerances and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dialect:
    """What differs between engines."""

    name: str
    refuses: Callable[[Path], str | None]
    """Why a weights folder cannot be loaded by this engine; None when it can."""
    probe_tokens: int
    """`max_tokens` of a request that only wants prompt log-probabilities."""
    already_loaded: Callable[[int, str], bool]
    """Whether an error (status, message) only says that the name is loaded already."""


EMBEDDED = Dialect(
    name="embedded", refuses=lambda path: None, probe_tokens=0, already_loaded=lambda status, message: False
)
