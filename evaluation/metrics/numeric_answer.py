"""Where a number is expected: is the last number of the answer the reference's last number?"""

from __future__ import annotations

from evaluation.metrics.metric import Answered, Metric
from training.graders.numeric_answer import is_number, last_number


def score(item: Answered) -> float | None:
    """1 when equal; None where the reference is not a bare number, has no "####", and asks for no numeric grading."""
    expected = last_number(item.reference)
    if expected is None or not (item.grader == "numeric_answer" or is_number(item.reference)):
        return None
    got = last_number(item.answer)
    return float(got is not None and abs(got - expected) <= 1e-6 * max(1.0, abs(expected)))


METRIC = Metric("numeric_answer", "higher", True, "Share of answers whose final number is right.", score)
