"""Control win-rates for length: take the liking for long answers out.

Source: Dubois, Galambosi, Liang, Hashimoto 2024, arXiv:2404.04475 (length-controlled AlpacaEval). The preference for
our answer is modelled as sigmoid(theta + gamma tanh(d / s)), d the difference of lengths and s its spread; the
controlled win-rate is sigmoid(theta), what is left at equal lengths.
"""

from __future__ import annotations

import numpy as np

from evaluation.significance import Floats

_RIDGE = 1.0
"""Weight of the prior that length does not matter, against one comparison's: it keeps few and one-sided ones finite."""


def length_controlled(values: Floats, ours: Floats, theirs: Floats) -> Floats:
    """Take off what length explains from preferences (1 ours, 0 theirs, 0.5 a tie), in the same order.

    Their mean is the controlled win-rate. Each keeps its own residual, so they are paired and tested like any values;
    one may lie a little outside of 0..1.

    Args:
        ours, theirs: lengths of the two answers of each comparison, in tokens.
    """
    difference = ours - theirs
    spread = float(np.std(difference))
    if len(values) < 2 or spread == 0.0:
        return values
    longer = np.tanh(difference / spread)
    theta, gamma = _fit(values, longer)
    return np.asarray(values - (_sigmoid(theta + gamma * longer) - _sigmoid(np.array(theta))))


def _fit(values: Floats, longer: Floats) -> tuple[float, float]:
    """Newton's method for a logistic regression with a small ridge; converges from 0 since the loss is convex."""
    theta = gamma = 0.0
    ridge = np.diag([1e-3, _RIDGE])
    columns = np.column_stack([np.ones_like(longer), longer])
    for _ in range(50):
        expected = _sigmoid(theta + gamma * longer)
        gradient = columns.T @ (values - expected) - ridge @ np.array([theta, gamma])
        weight = expected * (1.0 - expected)
        step = np.linalg.solve(columns.T @ (columns * weight[:, None]) + ridge, gradient)
        step *= min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
        theta, gamma = theta + float(step[0]), gamma + float(step[1])
        if float(np.abs(step).max()) < 1e-10:
            break
    return theta, gamma


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -40.0, 40.0))))
