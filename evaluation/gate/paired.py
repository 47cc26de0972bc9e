"""From a scorecard's per-item values to paired differences by unit, and to all p-values of a night in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.scorecard import MetricInfo, Scorecard, ScoredItem, Table
from evaluation.significance import Floats, sign_flip_p_values


@dataclass(frozen=True)
class Paired:
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

    @property
    def items_per_unit(self) -> float:
        """Mean number of items in a unit."""
        return self.items / len(self.units) if self.units else 1.0


def compare(
    scorecard: Scorecard,
    metric: MetricInfo,
    version: str,
    against: str,
    keep: Callable[[ScoredItem], bool] = lambda item: True,
) -> Paired:
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
    return Paired(
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


class Battery:
    """Sign-flip tests that share one set of random signs: one sign per unit of the table, whatever is tested."""

    def __init__(self, table: Table) -> None:
        self._row = {group: row for row, group in enumerate(sorted({item.group for item in table.items}))}
        self._columns: dict[tuple[str, ...], Floats] = {}

    def better(self, key: tuple[str, ...], paired: Paired, *, than: float = 0.0) -> None:
        """Test that the mean difference is greater than `than`."""
        self._add(key, paired, paired.differences - than)

    def worse(self, key: tuple[str, ...], paired: Paired, *, by: float = 0.0) -> None:
        """Test that the mean difference is less than `-by`."""
        self._add(key, paired, -paired.differences - by)

    def _add(self, key: tuple[str, ...], paired: Paired, values: Floats) -> None:
        column = np.zeros(len(self._row))
        column[[self._row[unit] for unit in paired.units]] = values
        self._columns[key] = column

    def run(self, *, flips: int, seed: int) -> dict[tuple[str, ...], float]:
        """All p-values, by key."""
        if not self._columns:
            return {}
        matrix = np.column_stack(list(self._columns.values()))
        p_values = sign_flip_p_values(matrix, flips=flips, seed=seed)
        return dict(zip(self._columns, (float(p) for p in p_values), strict=True))


def slice_values(table: Table, dimension: str, min_units: int) -> tuple[list[str], list[str]]:
    """Values of a slice dimension with enough units to judge, and those with too few (to be pooled). Both sorted."""
    units: dict[str, set[str]] = {}
    for item in table.items:
        value = item.slices.get(dimension)
        if value is not None:
            units.setdefault(value, set()).add(item.group)
    judged = sorted(value for value, groups in units.items() if len(groups) >= min_units)
    return judged, sorted(set(units) - set(judged))
