"""Choose which weights of a stage are kept: the last ones, unless earlier ones were better by more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LEVEL = 0.05
"""An earlier measurement counts as better where luck alone would show such a difference less often than this."""


class Measured(NamedTuple):
    """One measurement of the held-out loss."""

    step: int
    """Optimizer steps done by then."""
    loss: float
    """Mean loss."""
    batches: tuple[tuple[float, float], ...] = ()
    """(sum of losses, what it is divided by) of each batch of held-out items, the same batches each time; empty where
    the objective measures otherwise."""


def measurements(history: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """Read the measurements in a trainer's log, in order."""
    return [
        Measured(int(entry["step"]), float(entry["eval_loss"]), tuple((t, m) for t, m in entry.get(BATCHES, ())))
        for entry in history
        if "eval_loss" in entry
    ]


BATCHES = "eval_batches"
"""Name in the trainer's log of the sums of each batch."""


def lowest(measured: Sequence[Measured]) -> Measured:
    """Find the measurement of the lowest loss, the first of equal ones."""
    return min(measured, key=lambda each: each.loss)


def is_better(earlier: Measured, later: Measured) -> bool:
    """Decide whether the earlier weights are better than the later ones by more than the noise of the held-out items.

    One-sided t-test over the batches' paired differences, as of a ratio of sums (Cochran, Sampling Techniques, 1977,
    section 6.3). The mean alone misleads where few items are held out: a single wrong label grows dearer the surer the
    model becomes of everything else, and the mean then asks for weights from the middle of the schedule, which answer
    far worse. Where nothing is known of the batches, the mean decides.
    """
    if later.loss <= earlier.loss:
        return False
    if not math.isfinite(later.loss) or not earlier.batches or len(earlier.batches) != len(later.batches):
        return True
    count = len(earlier.batches)
    if count < 2:
        return False
    normalizer = sum(m for _, m in later.batches)
    differences = [
        of_later - of_earlier for (of_earlier, _), (of_later, _) in zip(earlier.batches, later.batches, strict=True)
    ]
    mean = sum(differences) / normalizer
    spread = sum((d - mean * m) ** 2 for d, (_, m) in zip(differences, later.batches, strict=True))
    error = math.sqrt(count / (count - 1) * spread) / normalizer
    from scipy.stats import t

    return error == 0 or mean / error > float(t.ppf(1 - LEVEL, count - 1))


def kept(measured: Sequence[Measured]) -> Measured:
    """Choose the measurement whose weights are kept when a stage ends."""
    best = lowest(measured)
    return best if is_better(best, measured[-1]) else measured[-1]
