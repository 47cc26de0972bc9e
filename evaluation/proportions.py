"""Compute the confidence interval of a proportion."""

from __future__ import annotations


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion; (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # half a second, which neither the gateway nor the command line pays at its start

    interval = binomtest(successes, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
