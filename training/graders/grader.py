"""Describe one grader: a function that scores an answer against its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Grader:
    """One way to score an answer."""

    name: str
    summary: str
    """One sentence."""
    grade: Callable[[str, str], float]
    """(answer, reference) -> 0 (wrong) to 1 (right)."""
    isolated: bool = False
    """Whether it runs in a process of its own with a time limit, since what it is given decides how long it takes."""
