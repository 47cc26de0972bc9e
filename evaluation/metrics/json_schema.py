"""Where a JSON object is expected: has the answer exactly the reference's fields, each with the same kind of value?"""

from __future__ import annotations

from typing import Any

from evaluation.metrics.metric import Answered, Metric
from training.structured import json_value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return type(value).__name__


def _fits(answer: Any, reference: Any) -> bool:
    if isinstance(reference, dict):
        return (
            isinstance(answer, dict)
            and answer.keys() == reference.keys()
            and all(_fits(answer[key], reference[key]) for key in reference)
        )
    # A null in the reference is an optional field: any value fits; and a field may always be left null.
    return reference is None or answer is None or _kind(answer) == _kind(reference)


def score(item: Answered) -> float | None:
    """1 when the fields and kinds match; None where the reference is no object."""
    reference = json_value(item.reference)
    return float(_fits(json_value(item.answer), reference)) if isinstance(reference, dict) else None


METRIC = Metric("json_schema", "higher", True, "Share of JSON answers with the expected fields and types.", score)
