"""Check whether the last number of the answer is the reference's last number, where a number is expected."""

from __future__ import annotations

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.numeric_answer import grade, is_number, last_number


def score(item: MetricInput) -> float | None:
    """1 when equal; None where the reference is not a bare number, has no "####", and asks for no numeric grading."""
    if (
        not item.has_answer
        or last_number(item.reference) is None
        or not (item.grader == "numeric_answer" or is_number(item.reference))
    ):
        return None
    return grade(item.answer, item.reference)


METRIC = Metric("numeric_answer", "higher", True, "Share of answers whose final number is right.", score)
