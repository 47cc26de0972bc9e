"""Define a metric: a pure function of one question and its answer, with a direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from feedback.events import is_answer


@dataclass(frozen=True)
class MetricInput:
    """One question, one version's answer, and what the version thinks of the reference."""

    reference: str
    """The right answer, as trusted people gave it; or what `grader` holds answers to, see `has_answer`."""
    answer: str
    """What the version said (greedy)."""
    grader: str | None = None
    """How the reference wants to be compared: a metric's name, or None when nothing special is asked."""
    reference_logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each token of the reference answer; None when it is not a completion."""
    answer_tokens: int = 0
    """Tokens of the answer, end of turn included."""
    truncated: bool = False
    """Whether the answer ran into the length limit."""
    unsafe: float | None = None
    """Probability that the answer is unsafe, by the configured classifier; None without one."""

    @property
    def has_answer(self) -> bool:
        """Whether the reference is an answer to compare with, and no schema or pattern."""
        return is_answer(self.grader)


@dataclass(frozen=True)
class Metric:
    """A measure of one answer.

    Whether `score` is None must depend on the question alone, never on the answer: pairs would fall apart otherwise.
    """

    name: str
    direction: Literal["higher", "lower", "neutral"]
    """Whether more or less is better; neutral ones are reported and never tested."""
    binary: bool
    """Whether every value is 0 or 1."""
    description: str
    """One sentence for people."""
    score: Callable[[MetricInput], float | None]
    """The value, or None where the metric does not apply to the question."""
