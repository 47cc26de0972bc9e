"""Test a family of one-sided hypotheses about paired differences with one set of random sign flips."""

from __future__ import annotations

import math

import numpy as np

from evaluation.gate.paired import PairedDifferences
from evaluation.scorecard import Table
from evaluation.significance import Floats, sign_flip_p_values


class Hypothesis:
    """That the mean of a column of values by unit is greater than zero."""

    def __init__(self, column: Floats) -> None:
        self.column = column
        self._p_value = math.nan

    @property
    def p_value(self) -> float:
        """Small where that is shown; known when its family was tested."""
        assert not math.isnan(self._p_value), "the family was not tested yet"
        return self._p_value

    def resolve(self, p_value: float) -> None:
        """Take what the family's test gave."""
        self._p_value = p_value


class HypothesisFamily:
    """Hypotheses about one table. They share their signs, one for each unit of the table, whatever is tested."""

    def __init__(self, table: Table) -> None:
        self._row = {group: row for row, group in enumerate(sorted({item.group for item in table.items}))}
        self._hypotheses: list[Hypothesis] = []

    def better(self, paired: PairedDifferences, *, than: float = 0.0) -> Hypothesis:
        """State that the mean difference is greater than `than`."""
        return self._add(paired, paired.differences - than)

    def worse(self, paired: PairedDifferences, *, by: float = 0.0) -> Hypothesis:
        """State that the mean difference is less than `-by`."""
        return self._add(paired, -paired.differences - by)

    def test(self, *, flips: int, seed: int) -> None:
        """Give every hypothesis its p-value."""
        if self._hypotheses:
            matrix = np.column_stack([hypothesis.column for hypothesis in self._hypotheses])
            p_values = sign_flip_p_values(matrix, flips=flips, seed=seed)
            for hypothesis, p_value in zip(self._hypotheses, p_values, strict=True):
                hypothesis.resolve(float(p_value))

    def _add(self, paired: PairedDifferences, values: Floats) -> Hypothesis:
        column = np.zeros(len(self._row))
        column[[self._row[unit] for unit in paired.units]] = values
        self._hypotheses.append(Hypothesis(column))
        return self._hypotheses[-1]
