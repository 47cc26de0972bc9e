"""How much a version is like another: do they move the base in the same direction on the probe prompts?

A bar goes by digest, so tomorrow's near-twin of a barred version is another version. What both do to the base's
log-probabilities on the same fixed prompts shows the likeness. The numbers stand in the probes, so no model runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.probe import Probe

ALIKE = 0.9
"""Likeness from which a verdict mentions it."""


def likeness(one: Probe, other: Probe) -> float | None:
    """Cosine of the two versions' effects (nats by token) on the prompts they share; None where there is no effect.

    1: the same direction, whatever the strength; 0: nothing in common.
    """
    theirs = {prompt.ids: prompt for prompt in other.prompts}
    a: list[float] = []
    b: list[float] = []
    for prompt in one.prompts:
        twin = theirs.get(prompt.ids)
        if twin is not None:
            a += [v - plain for v, plain in zip(prompt.version, prompt.base, strict=True)]
            b += [v - plain for v, plain in zip(twin.version, twin.base, strict=True)]
    size = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return round(math.fsum(x * y for x, y in zip(a, b, strict=True)) / size, 4) if size else None


def barred_likeness(probe: Path, barred: Mapping[str, Path]) -> dict[str, float]:
    """Barred version -> likeness of the version whose probe is `probe`. Probes that are gone are left out."""
    from training.probe import read_probe

    if not probe.exists():
        return {}
    own = read_probe(probe.parent)
    found = {name: likeness(own, read_probe(path.parent)) for name, path in sorted(barred.items()) if path.exists()}
    return {name: value for name, value in found.items() if value is not None}
