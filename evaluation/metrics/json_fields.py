"""Compute the share of an expected JSON object's fields that the answer has right. Invented fields count against."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.json_answers import json_value
from training.graders.json_fields import grade


def score(item: MetricInput) -> float | None:
    """Right fields / all fields of either object; None where the reference is no object, or a schema."""
    if not item.has_answer or not isinstance(json_value(item.reference), dict):
        return None
    return grade(item.answer, item.reference)


METRIC = Metric("json_fields", "higher", False, "Share of a JSON answer's fields that are right.", score)
