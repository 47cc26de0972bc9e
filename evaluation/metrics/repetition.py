"""Compute how repetitive the answer is: the share of its four-word sequences that it has said before."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput

_WORDS = 4


def score(item: MetricInput) -> float | None:
    """1 - distinct / all four-word sequences; 0 for answers too short to repeat themselves."""
    words = item.answer.split()
    grams = [tuple(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


METRIC = Metric("repetition", "lower", False, "Share of four-word sequences that repeat earlier ones.", score)
