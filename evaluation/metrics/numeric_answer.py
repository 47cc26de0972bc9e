"""Where a number is expected: is the last number of the answer the reference's last number?"""

from __future__ import annotations

import re

from evaluation.metrics.metric import Answered, Metric

_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_FINAL = re.compile(r"####\s*(.+)")


def last_number(text: str) -> float | None:
    """The number after the last "####" if there is one, else the last number of the text; None without any."""
    final = _FINAL.findall(text)
    found = _NUMBER.findall(final[-1] if final else text)
    return float(found[-1].replace(",", "").replace("$", "")) if found else None


def score(item: Answered) -> float | None:
    """1 when equal; None where the reference is not a bare number, has no "####", and asks for no numeric grading."""
    asked = item.grader == "numeric_answer" or _FINAL.search(item.reference) is not None
    expected = last_number(item.reference)
    if expected is None or not (asked or _NUMBER.fullmatch(item.reference.strip())):
        return None
    got = last_number(item.answer)
    return float(got is not None and abs(got - expected) <= 1e-6 * max(1.0, abs(expected)))


METRIC = Metric("numeric_answer", "higher", True, "Share of answers whose final number is right.", score)
