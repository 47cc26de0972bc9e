"""Pair two versions on a scorecard's per-item values: differences by unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.scorecard import MetricInfo, Scorecard, ScoredItem, Table
from evaluation.significance import Floats


@dataclass(frozen=True)
class PairedDifferences:
    """Differences challenger minus champion by unit, turned so that more is better."""

    metric: str
    units: tuple[str, ...]
    """Groups compared, sorted."""
    differences: Floats
    """Mean difference of each unit's items."""
    wins: Floats
    """Share of each unit's items on which the challenger is better."""
    losses: Floats
    """Share of each unit's items on which it is worse."""
    items: int
    """Items compared."""
    missing: int
    """Items that have a value for one of the two only."""

    @property
    def mean(self) -> float:
        """Mean difference over units; 0 when there is none."""
        return math.fsum(self.differences) / len(self.units) if self.units else 0.0

    @property
    def variance(self) -> float:
        """Variance of a unit's difference."""
        return float(np.var(self.differences, ddof=1)) if len(self.units) > 1 else 0.0

    def in_own_direction(self, metric: MetricInfo) -> Floats:
        """Turn the differences to the metric's own direction, as readers want them."""
        return -self.differences if metric.direction == "lower" else self.differences

    @property
    def items_per_unit(self) -> float:
        """Mean number of items in a unit."""
        return self.items / len(self.units) if self.units else 1.0


def paired_differences(
    scorecard: Scorecard,
    metric: MetricInfo,
    version: str,
    against: str,
    keep: Callable[[ScoredItem], bool] = lambda item: True,
) -> PairedDifferences:
    """Pair `version` with `against` on one metric, on the items that `keep` lets through.

    Sums use `math.fsum` over items in id order, so the result does not depend on the order of anything.

    Raises:
        KeyError: one of the two has no values for the metric.
    """
    table = scorecard.table(metric)
    ours, theirs = table.scores[metric.name][version], table.scores[metric.name][against]
    sign = -1.0 if metric.direction == "lower" else 1.0
    groups: dict[str, list[float]] = {}
    missing = 0
    for item, a, b in zip(table.items, ours, theirs, strict=True):
        if not keep(item):
            continue
        if a is None or b is None:
            missing += (a is None) != (b is None)
            continue
        groups.setdefault(item.group, []).append(sign * (a - b))
    units = tuple(sorted(groups))
    sizes = [len(groups[unit]) for unit in units]
    return PairedDifferences(
        metric=metric.name,
        units=units,
        differences=np.array([math.fsum(groups[u]) / n for u, n in zip(units, sizes, strict=True)], dtype=np.float64),
        wins=np.array([sum(d > 0 for d in groups[u]) / n for u, n in zip(units, sizes, strict=True)], dtype=np.float64),
        losses=np.array(
            [sum(d < 0 for d in groups[u]) / n for u, n in zip(units, sizes, strict=True)], dtype=np.float64
        ),
        items=sum(sizes),
        missing=missing,
    )


def slice_values(table: Table, dimension: str, min_units: int) -> tuple[list[str], list[str]]:
    """Split a slice dimension's values into those with enough units to judge and those to be pooled, both sorted."""
    units: dict[str, set[str]] = {}
    for item in table.items:
        value = item.slices.get(dimension)
        if value is not None:
            units.setdefault(value, set()).add(item.group)
    judged = sorted(value for value, groups in units.items() if len(groups) >= min_units)
    return judged, sorted(set(units) - set(judged))
