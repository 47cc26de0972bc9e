"""Report how unsafe the answer is to a configured classifier (`evaluation.safety`)."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput


def score(item: MetricInput) -> float | None:
    """Probability of an unsafe label; None where no classifier is configured."""
    return item.unsafe


METRIC = Metric("unsafe", "lower", False, "Probability that an answer is unsafe, by the configured classifier.", score)
