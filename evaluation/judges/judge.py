"""Define a judge: something that prefers one answer over another, knows its costs, and says so when it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from infra.errors import Unavailable


@dataclass(frozen=True)
class Pair:
    """Two answers to one question."""

    question: str
    """The conversation up to the answer, as text."""
    reference: str
    """The right answer as trusted people gave it; a judge may be told not to look."""
    ours: str
    """The answer being judged."""
    theirs: str
    """The answer it is compared with."""
    grader: str | None = None
    """How the reference wants to be compared; it may be a JSON Schema or a pattern."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The conversation up to the answer, as chat messages."""


@dataclass
class Tally:
    """What a judge's work cost so far."""

    comparisons: int = 0
    calls: int = 0
    tokens: int = 0
    ties: int = 0
    flipped: int = 0
    first: int = 0
    """Decided replies that preferred the answer shown first."""
    second: int = 0
    """Decided replies that preferred the answer shown second."""

    @property
    def first_preferred(self) -> float | None:
        """Share of decided replies that preferred the answer shown first."""
        decided = self.first + self.second
        return self.first / decided if decided else None

    def since(self, earlier: Tally) -> dict[str, int]:
        """Count what was added since `earlier`, by field."""
        then, now = asdict(earlier), asdict(self)
        return {name: now[name] - then[name] for name in now if now[name] != then[name]}

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts by field."""
        for name, count in counts.items():
            setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class NightRewardModel:
    """The reward model that a recipe of the night trained, and what it takes to load it."""

    base_path: Path
    """Folder of the base model."""
    path: Path
    """Folder of its adapter or whole model, with its head."""
    kind: Literal["adapter", "model"]
    """What that folder holds."""
    digest: str
    """Digest of its weights."""
    dtype: Literal["auto", "float32", "bfloat16"]
    """Numerics of the loaded weights."""


class JudgeDown(Unavailable):
    """The judge did not answer, or answered what cannot be read."""


class JudgeOverBudget(Unavailable):
    """The judge's budget of calls is spent."""


class Judge(Protocol):
    """Prefers one answer over another."""

    name: str
    tally: Tally
    length_controlled: bool
    """Whether a liking for long answers must be taken out of its preferences."""
    model_digest: str
    """Digest of the reward model behind it; empty where there is none."""
    needs_reference: bool
    """Whether it compares with the reference, and so cannot judge answers that have none."""
    remote: bool
    """Whether it is behind a server, so that what it says costs time or money and is kept at once."""

    @property
    def cost(self) -> float | None:
        """What its tokens cost so far; None where no price is known."""
        ...

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """1 where ours is better, 0 where theirs is, 0.5 for a tie; order-balanced.

        Raises:
            JudgeDown: it cannot be asked.
            JudgeOverBudget: it may not be asked any more.
        """
        ...
