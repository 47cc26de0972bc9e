"""Is the last number of the answer the reference's last number? (What follows "####" counts before all else.)"""

from __future__ import annotations

import math
import re

from training.graders.grader import Grader

_NUMBER = re.compile(r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_FINAL = re.compile(r"####\s*(.+)")


def last_number(text: str) -> float | None:
    """The number after the last "####" if there is one, else the last number of the text; None without any."""
    final = _FINAL.findall(text)
    numbers = _NUMBER.findall(final[-1] if final else text)
    return float(numbers[-1].replace(",", "").replace("$", "")) if numbers else None


def is_number(reference: str) -> bool:
    """Whether a reference asks for a number: it is a bare one, or ends in "#### number"."""
    return last_number(reference) is not None and (
        _FINAL.search(reference) is not None or _NUMBER.fullmatch(reference.strip()) is not None
    )


def grade(answer: str, reference: str) -> float:
    """1 when the numbers agree (to a millionth, or to twelve digits), else 0; 0 too where the reference holds none."""
    expected, got = last_number(reference), last_number(answer)
    if expected is None or got is None:
        return 0.0
    return float(math.isclose(got, expected, rel_tol=1e-12, abs_tol=1e-6))


GRADER = Grader("numeric_answer", "the answer's final number is the reference's", grade)
