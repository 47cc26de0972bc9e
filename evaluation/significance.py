"""Test paired differences: plain functions over arrays, no randomness that is not seeded by the caller.

Units (split groups), not items, are what is tested: average within a group first (`evaluation/gate/paired.py` does).
All p-values are one-sided, small when the stated alternative holds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CHUNK = 1024
"""Flips drawn at once: bounds memory to about 8 kB x units."""


def seed_of(text: str) -> int:
    """Derive a 64-bit seed from a digest or any other text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def flips_needed(challengers: int, alpha: float) -> int:
    """Count the sign flips that resolve a p-value far below the smallest Holm threshold: 100 K / alpha."""
    return math.ceil(100 * max(1, challengers) / alpha)


def sign_flip_p_values(differences: Floats, *, flips: int, seed: int) -> Floats:
    """Compute one-sided p-values that each column's mean is greater than zero, by unstudentised random sign flips.

    p = (1 + #{flipped sum >= observed sum}) / (1 + flips). The same signs serve every column, so p-values of one call
    are comparable, and because signs do not depend on the values, raising a value never raises its column's p-value.
    A zero changes no sum: use it for a unit that a column does not have. For "greater than m" pass values minus m.

    Source: Fisher's randomisation test; Hemerik & Goeman (2018), TEST 27:811, for random flips with the identity in.

    Args:
        differences: units x columns.
        flips: number of random flips, see `flips_needed`.
        seed: of the signs.
    """
    values = np.ascontiguousarray(differences, dtype=np.float64)
    units, columns = values.shape
    if units == 0:
        return np.ones(columns)
    totals = values.sum(axis=0)
    # A flipped sum is 2 * (sum of the units that keep their sign) - total, so bits are enough.
    reachable = totals - 1e-9 * (np.abs(values).sum(axis=0) + 1e-300)
    generator = np.random.Generator(np.random.PCG64(seed))
    at_least = np.zeros(columns, dtype=np.int64)
    width = -(-units // 8)
    for start in range(0, flips, _CHUNK):
        rows = min(_CHUNK, flips - start)
        packed = np.frombuffer(generator.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
        kept = np.unpackbits(packed, axis=1, count=units).astype(np.float64)
        at_least += np.count_nonzero(2.0 * (kept @ values) - totals >= reachable, axis=0)
    return np.asarray((1.0 + at_least) / (1.0 + flips), dtype=np.float64)


def normal_upper(z: float) -> float:
    """P(Z > z) of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """Find the z with P(Z <= z) = p, by bisection on erfc: exact enough, and no import of scipy."""
    if not 0.0 < p < 1.0:
        raise ValueError(f"a probability strictly between 0 and 1 was expected, got {p}")
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        if normal_upper(-middle) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def tango_z(wins: float, losses: float, units: float, difference: float) -> float:
    """Compute Tango's score statistic for a paired difference of proportions against a hypothesised `difference`.

    `wins` and `losses` are the discordant counts (fractions allowed). Large z speaks for "greater than `difference`".
    Source: Tango (1998), Statistics in Medicine 17:891-908, equations for the restricted estimate of q21.
    """
    delta = difference
    a = 2.0 * units
    b = -wins - losses + (2.0 * units - wins + losses) * delta
    c = -losses * delta * (1.0 - delta)
    q = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    variance = units * (2.0 * q + delta * (1.0 - delta))
    above = wins - losses - units * delta
    if variance <= 1e-12:
        return 0.0 if abs(above) < 1e-12 else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


_DESIGN_PRIOR = 10.0
"""Discordant units' worth of belief in the conservative design effect 1 (a unit counts as one item)."""


def paired_binary_margin_p(wins: Floats, losses: Floats, margin: float) -> float:
    """Compute a one-sided p-value that a paired-binary difference is greater than `-margin` (non-inferiority).

    Tango's score test on an effective number of units: groups average several items, so a group's difference varies
    less than a single item's. The design effect is how clumped wins and losses are within groups,
    (sum w^2 + l^2) / (sum w + l), shrunk towards 1 by `_DESIGN_PRIOR` units, and counts are divided by it (Rao & Scott
    1992, Biometrics 48:577). For singletons it is 1 and this is Tango's test; a group whose items always move together
    counts once; dropping the cross term -2wl and the shrinkage both err towards not passing.

    Args:
        wins, losses: per unit, the share of its items that the challenger alone / the champion alone got right.
        margin: greatest acceptable loss, as a share (0.02 is two points).
    """
    units = len(wins)
    if units == 0:
        return 1.0
    discordant = math.fsum(wins) + math.fsum(losses)
    clumped = math.fsum(wins * wins) + math.fsum(losses * losses)
    design = (clumped + _DESIGN_PRIOR) / (discordant + _DESIGN_PRIOR)
    z = tango_z(math.fsum(wins) / design, math.fsum(losses) / design, units / design, -margin)
    return normal_upper(z)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method, in the order given. Source: Holm (1979), Scand. J. Statist. 6:65."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence limits."""

    mean: float
    low: float
    high: float


def bca_interval(values: Floats, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Draw the bias-corrected accelerated (BCa) bootstrap interval of a mean. It decides nothing.

    Source: Efron (1987), JASA 82:171; the acceleration of a mean is its skewness / (6 sqrt n).
    """
    data = np.sort(np.asarray(values, dtype=np.float64))
    count = len(data)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan)
    mean = math.fsum(data) / count
    centred = data - mean
    spread = float(np.sqrt(np.sum(centred**2)))
    if count == 1 or spread < 1e-12:
        return Interval(mean, mean, mean)
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.empty(draws)
    for start in range(0, draws, 256):
        rows = min(256, draws - start)
        means[start : start + rows] = data[generator.integers(0, count, size=(rows, count))].mean(axis=1)
    means.sort()
    below = (np.count_nonzero(means < mean - 1e-12) + 0.5 * np.count_nonzero(np.abs(means - mean) <= 1e-12)) / draws
    bias = normal_quantile(min(max(below, 1.0 / draws), 1.0 - 1.0 / draws))
    acceleration = float(np.sum(centred**3)) / (6.0 * spread**3)

    def limit(tail: float) -> float:
        z = bias + normal_quantile(tail)
        shrink = 1.0 - acceleration * z
        share = 1.0 - normal_upper(bias + z / shrink) if shrink > 0 else (1.0 if z > 0 else 0.0)
        return float(np.quantile(means, min(max(share, 0.0), 1.0)))

    return Interval(mean, limit((1 - level) / 2), limit((1 + level) / 2))


def units_for_margin(margin: float, *, variance: float, alpha: float, power: float = 0.8) -> int:
    """Compute the sample size: units a one-sided test needs to show `margin` where a unit's difference has `variance`.

    For paired yes/no answers of equal quality the variance is the share of discordant pairs: 5 points at 20% discord,
    alpha 5% and power 80% need 495 units.

    Source: the normal approximation of a mean of paired differences. For yes/no answers Connor (1987), Biometrics
    43:207, for McNemar's test, with the null's variance under the alternative too: a little too many units.
    """
    reach = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return math.ceil(reach * reach * variance / (margin * margin) - 1e-9)


def margin_for_units(units: int, *, variance: float, alpha: float, power: float = 0.8) -> float:
    """Compute the minimum detectable effect of `units` units: `units_for_margin` the other way round."""
    reach = normal_quantile(1.0 - alpha) + normal_quantile(power)
    return reach * math.sqrt(variance / max(1, units))
