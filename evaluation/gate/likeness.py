"""Compare two versions' effects: the cosine of what they do to the base's log-probabilities on the probe prompts.

A bar goes by digest, so tomorrow's near-twin of a barred version is another version. The numbers stand in the probes
already, so no model runs. Gate, release and `ratchet why` all ask here.

Why the cosine and not a distance: the question is whether the change that was taken back comes again. A twin has
learned the same from one more day, with more steps or at another learning rate, so it differs in strength before
anything else. Twice the effect is the same harm done harder; a distance, 1 - ||d1 - d2|| / (||d1|| + ||d2||), calls it
0.67, less like than one at five sixths of the strength (0.91), and gives 0.29 to two that have nothing in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import RatchetError
from infra.stored_model import Stored

if TYPE_CHECKING:
    from training.stages.probe import Probe

NEAR_TWIN = 0.9
"""Likeness from which people are alerted."""


class Likeness(Stored):
    """The barred version that a version is most like."""

    version: str
    """The barred one."""
    likeness: float
    """Cosine of the two effects, -1 to 1. Ledger lines of earlier releases hold 0 to 1 by a distance."""

    @property
    def near_twin(self) -> bool:
        """Whether they change the base almost alike."""
        return self.likeness >= NEAR_TWIN


def likeness(probe: Probe, other: Probe) -> float | None:
    """Compute the cosine of the two versions' effects (nats by token) on the prompts they share.

    1: the same direction, whatever the strength; 0: nothing in common; -1: the opposite. None where there is no
    direction to compare: no prompt of the same tokens (another base), a value that is no number, or an effect on them
    that is rounding.
    """
    from training.weights.logprob_effects import NEGLIGIBLE

    theirs = {prompt.ids: prompt for prompt in other.prompts}
    a: list[float] = []
    b: list[float] = []
    for prompt in probe.prompts:
        twin = theirs.get(prompt.ids)
        if twin is not None:
            a += [v - plain for v, plain in zip(prompt.version, prompt.base, strict=True)]
            b += [v - plain for v, plain in zip(twin.version, twin.base, strict=True)]
    sizes = [math.hypot(*a), math.hypot(*b)]
    if not all(math.isfinite(size) and size > NEGLIGIBLE * math.sqrt(len(a)) for size in sizes):
        return None
    return round(math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.prod(sizes), 4)


def barred_likeness(probe: Path, barred: Mapping[str, Path]) -> dict[str, float]:
    """Compare the version whose probe is `probe` with each barred version; barred version -> likeness.

    Left out are those whose probe is gone or cannot be read: a barred version's files may have been removed, and
    likeness stops nothing.
    """
    from training.stages.probe import read_probe

    likenesses: dict[str, float] = {}
    try:
        own = read_probe(probe.parent)
    except RatchetError:
        return {}
    for name, path in sorted(barred.items()):
        try:
            value = likeness(own, read_probe(path.parent))
        except RatchetError:
            continue
        if value is not None:
            likenesses[name] = value
    return likenesses


def most_like(versions_dir: Path, version: str, barred: Iterable[str]) -> Likeness | None:
    """Find the barred version that `version` is most like, both in `versions_dir`; None where none can be compared."""
    from training.stages.probe import PROBE

    probes = {name: versions_dir / name / PROBE for name in barred}
    likenesses = barred_likeness(versions_dir / version / PROBE, probes)
    if not likenesses:
        return None
    name = max(likenesses, key=lambda each: likenesses[each])
    return Likeness(version=name, likeness=likenesses[name])
