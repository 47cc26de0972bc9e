"""Compare what a version does to its base in two places (train and serve): the difference of its effects.

A version is compared by its effect, the difference that it makes to the base's log-probabilities on fixed tokens: what
numerics do to base and version alike cancels out. With v = version, b = base, all as vectors of log-probabilities:

    effect = ||v_wanted - b_wanted||      error = ||(v - b) - (v_wanted - b_wanted)||
    noise  = ||b - b_wanted||, what the other place does to the base alone
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINIMUM_COSINE = 0.7
NEGLIGIBLE = 1e-4
"""A difference of so many nats a token is rounding, however small the effect."""
Scores = Sequence[Sequence[float]]
"""Log-probabilities of the tokens of several texts, in nats."""


@dataclass(frozen=True)
class Effects:
    """One version's effect in two places; every figure is a root mean square in nats a token, or has no unit."""

    tokens: int
    """Log-probabilities compared."""
    effect: float
    """Size of the effect that is wanted."""
    error: float
    """Size of the difference between the two effects."""
    noise: float
    """Size of the difference between the two bases."""
    cosine: float
    """Between the two effects; 0 where one of them is nothing."""

    @property
    def relative_error(self) -> float:
        """The error beside the effect."""
        return self.error / self.effect if self.effect else math.inf

    @property
    def finite(self) -> bool:
        """Whether all values that were compared are numbers."""
        return math.isfinite(self.error + self.noise)

    def same(self, tolerance: float) -> bool:
        """Decide whether it is the same version: the error is at most `tolerance` of the effect and twice the noise,
        and both effects point the same way."""
        within = self.error <= tolerance * self.effect + 2 * self.noise
        return self.finite and within and self.cosine >= MINIMUM_COSINE

    def __str__(self) -> str:
        return (
            f"effect {self.effect:.4g} nats a token, relative error {self.relative_error:.3g}, "
            f"cosine {self.cosine:.3f}, base differs by {self.noise:.3g} nats, {self.tokens} tokens"
        )


def compare(*, version: Scores, base: Scores, wanted_version: Scores, wanted_base: Scores) -> Effects:
    """Compare the effect in one place with the wanted one from another; all scores of the same tokens."""
    measured = _minus(_flat(version), _flat(base))
    wanted = _minus(_flat(wanted_version), _flat(wanted_base))
    effect, length = _size(wanted), _size(measured)
    both = length * effect
    return Effects(
        tokens=len(wanted),
        effect=effect,
        error=_size(_minus(measured, wanted)),
        noise=distance(base, wanted_base),
        cosine=math.fsum(a * b for a, b in zip(measured, wanted, strict=True)) / len(wanted) / both if both else 0.0,
    )


def distance(scores: Scores, wanted: Scores) -> float:
    """Compute the root mean square difference of scores of the same tokens, in nats a token."""
    return _size(_minus(_flat(scores), _flat(wanted)))


def _flat(scores: Scores) -> list[float]:
    return [value for row in scores for value in row]


def _minus(left: Iterable[float], right: Iterable[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def _size(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values))
