"""Check whether the whole answer is valid JSON, where JSON is expected."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.json_answers import is_structured


def score(item: MetricInput) -> float | None:
    """1 for a JSON object or array, 0 otherwise; None where the reference is prose."""
    if item.grader == "regex" or not is_structured(item.reference):  # "[1]" is a pattern too
        return None
    return float(is_structured(item.answer))


METRIC = Metric("json_validity", "higher", True, "Share of answers that are valid JSON where JSON is expected.", score)
