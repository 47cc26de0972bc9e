"""Does the answer match the reference, a regular expression? In a process of its own: some patterns take for ever."""

from __future__ import annotations

import re

from training.graders.grader import Grader


def grade(answer: str, reference: str) -> float:
    """1 when the pattern is found in the answer (anchor it with ^ and $ where all of it is meant), else 0.

    Raises:
        re.error: the reference is no regular expression.
    """
    return float(re.search(reference, answer) is not None)


GRADER = Grader("regex", "the reference is a regular expression found in the answer", grade, isolated=True)
