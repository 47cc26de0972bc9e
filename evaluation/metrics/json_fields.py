"""Where a JSON object is expected: the share of its fields that the answer has right. Invented fields count against."""

from __future__ import annotations

from evaluation.metrics.metric import Answered, Metric
from evaluation.metrics.structured import NOTHING, json_value, same


def score(item: Answered) -> float | None:
    """Right fields / all fields of either object; None where the reference is no object."""
    reference, answer = json_value(item.reference), json_value(item.answer)
    if not isinstance(reference, dict):
        return None
    if not isinstance(answer, dict):
        return 0.0
    names = reference.keys() | answer.keys()
    right = sum(same(answer.get(name, NOTHING), reference.get(name, NOTHING)) for name in names)
    return right / len(names) if names else 1.0


METRIC = Metric("json_fields", "higher", False, "Share of a JSON answer's fields that are right.", score)
