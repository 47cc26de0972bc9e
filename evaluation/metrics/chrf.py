"""Compute chrF, the character n-gram F-score against the reference. Popovic (2015); scorer: sacrebleu."""

from __future__ import annotations

from functools import cache
from typing import Any

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.json_answers import is_structured


@cache
def _scorer() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def score(item: MetricInput) -> float | None:
    """Score in 0..1; None where JSON is expected, or no answer to compare with is known."""
    if not item.has_answer or is_structured(item.reference):
        return None
    return round(float(_scorer().sentence_score(item.answer, [item.reference]).score) / 100.0, 9)


METRIC = Metric("chrf", "higher", False, "chrF of prose answers against the reference.", score)
