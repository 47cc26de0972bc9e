"""Check whether a JSON answer has exactly the expected object's fields, each with the same kind of value.

Where the question's grader is json_schema the reference is a JSON Schema, and the answer is held to that.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.json_answers import json_value

if TYPE_CHECKING:
    from training.graders.subprocess_grader import SubprocessGrader


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


def score(item: MetricInput) -> float | None:
    """1 when the schema or the fields and kinds fit; None where the reference is no object, or a broken schema."""
    if item.grader == "json_schema":
        return _by_schema(item)
    if not item.has_answer:
        return None
    reference = json_value(item.reference)
    return float(_fits(json_value(item.answer), reference)) if isinstance(reference, dict) else None


@cache
def _apart() -> SubprocessGrader:
    """Training's own grader, in a process with a time limit: feedback brings schemas, and with them patterns."""
    import atexit

    from training.graders.subprocess_grader import SubprocessGrader

    grader = SubprocessGrader("json_schema")
    atexit.register(grader.stop)
    return grader


def _by_schema(item: MetricInput) -> float | None:
    from evaluation.metrics.python_metric import score_apart

    return score_apart(_apart(), item) if _is_schema(item.reference) else None


@cache
def _is_schema(text: str) -> bool:
    from jsonschema import SchemaError, validators

    try:
        schema = json.loads(text)
        validators.validator_for(schema).check_schema(schema)
    except (ValueError, TypeError, RecursionError, SchemaError):
        return False  # by the question alone: nobody's answer can be right
    return True


METRIC = Metric("json_schema", "higher", True, "Share of JSON answers with the expected fields and types.", score)
