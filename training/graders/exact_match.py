"""Is the answer the reference, without regard to case, space and closing marks?"""

from __future__ import annotations

import unicodedata

from training.graders.grader import Grader


def normalise(text: str) -> str:
    """Unicode-normalised, case-folded, single-spaced, closing full stop and quotes dropped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .\"'`")


def grade(answer: str, reference: str) -> float:
    """1 when equal, else 0."""
    return float(normalise(answer) == normalise(reference))


GRADER = Grader("exact_match", "the answer is the reference, but for case, space and closing marks", grade)
