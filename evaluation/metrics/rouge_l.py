"""Compute ROUGE-L, the longest common subsequence of words with the reference, as F1. Lin 2004; scorer: rouge-score."""

from __future__ import annotations

from functools import cache
from typing import Any

from evaluation.metrics.metric import Metric, MetricInput
from training.graders.json_answers import is_structured


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def score(item: MetricInput) -> float | None:
    """F1 in 0..1; None where JSON is expected, or no answer to compare with is known."""
    if not item.has_answer or is_structured(item.reference):
        return None
    return round(float(_scorer().score(item.reference, item.answer)["rougeL"].fmeasure), 9)


METRIC = Metric("rouge_l", "higher", False, "ROUGE-L F1 of prose answers against the reference.", score)
