"""How alike two versions behave, by what their probes recorded: a bar is by digest, and a near-twin has another.

Every version's probe holds log-probabilities on the same fixed conversations, under the version and under the base.
With the effects d = version - base as vectors, likeness is 1 - ||d1 - d2|| / (||d1|| + ||d2||): 1 for the same
behaviour, 0 for opposite ones, about 0.3 for unrelated ones of equal strength.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from infra.errors import RatchetError
from infra.stored import Stored
from training.probe import Probe, read_probe

NEAR_TWIN = 0.9
"""Likeness from which people are told."""


class Likeness(Stored):
    """The barred version that a version is most like."""

    version: str
    """The barred one."""
    likeness: float
    """From 0 to 1."""

    @property
    def near_twin(self) -> bool:
        """Whether they behave almost alike."""
        return self.likeness >= NEAR_TWIN


def likeness(one: Probe, other: Probe) -> float | None:
    """How alike two versions are; None when their probes are not of the same prompts (another base)."""
    if [prompt.ids for prompt in one.prompts] != [prompt.ids for prompt in other.prompts]:
        return None
    first, second = _effect(one), _effect(other)
    sizes = _norm(first) + _norm(second)
    if sizes == 0.0:
        return 1.0
    return 1.0 - _norm([a - b for a, b in zip(first, second, strict=True)]) / sizes


def most_like(versions_dir: Path, version: str, barred: Iterable[str]) -> Likeness | None:
    """The barred version that `version` behaves most like; None where none can be compared."""
    try:
        own = read_probe(versions_dir / version)
    except RatchetError:
        return None
    found: list[Likeness] = []
    for name in barred:
        try:
            value = likeness(own, read_probe(versions_dir / name))
        except RatchetError:
            continue  # its files are gone; nothing to compare with
        if value is not None:
            found.append(Likeness(version=name, likeness=round(value, 4)))
    return max(found, key=lambda each: each.likeness, default=None)


def _effect(probe: Probe) -> list[float]:
    return [v - b for p in probe.prompts for v, b in zip(p.version, p.base, strict=True)]


def _norm(values: Iterable[float]) -> float:
    return math.sqrt(sum(value * value for value in values))
