"""Match the answer against the reference, where that is a regular expression (grader "regex")."""

from __future__ import annotations

import regex

from evaluation.metrics.metric import Metric, MetricInput

_SECONDS = 1.0
"""Time for one match: feedback brings patterns, and some take for ever on some answers."""


def score(item: MetricInput) -> float | None:
    """1 when it matches, 0 when it does not or takes too long; None for other questions and for broken patterns."""
    if item.grader != "regex":
        return None
    try:
        pattern = regex.compile(item.reference)
    except regex.error:
        return None  # by the question alone: nobody's answer can be right
    try:
        return float(pattern.search(item.answer, timeout=_SECONDS) is not None)
    except TimeoutError:
        return 0.0


METRIC = Metric("regex", "higher", True, "Share of answers that match the reference's pattern.", score)
