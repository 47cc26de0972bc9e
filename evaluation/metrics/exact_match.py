"""Check whether the answer is the reference: JSON as objects; prose without regard to case, space and closing marks."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.exact_match import normalise
from training.graders.json_answers import is_structured, json_value, same


def score(item: MetricInput) -> float | None:
    """1 when equal, else 0; None where the reference is a schema or a pattern."""
    if not item.has_answer:
        return None
    if is_structured(item.reference):
        return float(same(json_value(item.answer), json_value(item.reference)))
    return float(normalise(item.answer) == normalise(item.reference))


METRIC = Metric("exact_match", "higher", True, "Share of answers equal to the reference (JSON as objects).", score)
