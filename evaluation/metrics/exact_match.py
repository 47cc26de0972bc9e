"""Is the answer the reference? JSON is compared as objects; prose without regard to case, space and closing marks."""

from __future__ import annotations

import unicodedata

from evaluation.metrics.metric import Answered, Metric
from evaluation.metrics.structured import is_structured, json_value, same


def normalise(text: str) -> str:
    """Unicode-normalised, case-folded, single-spaced, closing full stop and quotes dropped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .\"'`")


def score(item: Answered) -> float | None:
    """1 when equal, else 0."""
    if is_structured(item.reference):
        return float(same(json_value(item.answer), json_value(item.reference)))
    return float(normalise(item.answer) == normalise(item.reference))


METRIC = Metric("exact_match", "higher", True, "Share of answers equal to the reference (JSON as objects).", score)
