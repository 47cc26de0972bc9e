"""Describe one grader: a function that scores an answer against its reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from pydantic import JsonValue


class Problem(TypedDict):
    """What is known of a prompt for grading its answers; JSON in an item's note."""

    reference: str | None
    """What a right answer is held against; None where only a reward model can grade."""
    grader: str | None
    """The grader it names, if any."""
    messages: Sequence[Mapping[str, JsonValue]]
    """The conversation."""


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
