"""Count the tokens of answers: neither more nor less is better, but a jump is worth seeing."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput


def score(item: MetricInput) -> float | None:
    """Tokens of the answer."""
    return float(item.answer_tokens)


METRIC = Metric("length", "neutral", False, "Tokens of the answer.", score)
