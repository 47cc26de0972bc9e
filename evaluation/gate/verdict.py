"""Define a verdict: what the gate decided of each challenger, and why."""

from __future__ import annotations

from typing import Literal

from infra.stored_model import Stored

Decision = Literal["promote", "reject", "inconclusive"]


class GuardResult(Stored):
    """One guard of one challenger."""

    metric: str
    """What is guarded."""
    margin: float
    """Greatest acceptable loss."""
    mean: float
    """Estimated change, turned so that more is better."""
    p_value: float
    """Small when the loss is shown to be smaller than the margin."""
    harm_p_value: float
    """Small when the challenger is shown to be worse than the champion."""
    units: int
    """Units compared."""


class SliceResult(Stored):
    """One slice of one challenger, on the primary metric."""

    name: str
    """dimension=value; "(pooled)" gathers the values too small to judge."""
    mean: float
    """Estimated gain in the slice."""
    adjusted_p: float
    """Small when the slice is shown to be harmed; Holm over the challenger's slices."""
    units: int
    """Units compared."""
    harmed: bool
    """Whether that blocks."""


class ChallengerVerdict(Stored):
    """What was decided about one challenger, with the numbers it rests on."""

    version: str
    """Which."""
    label: str
    """Its short name."""
    decision: Decision
    """promote here means it passed; of several that pass one is the winner."""
    reasons: tuple[str, ...]
    """Plain sentences with numbers."""
    gain: float | None = None
    """Estimated gain on the primary metric over the champion, turned so that more is better."""
    gain_low: float | None = None
    """Lower 95% confidence limit (BCa bootstrap; drawn, not decided by)."""
    gain_high: float | None = None
    """Upper 95% confidence limit."""
    units: int = 0
    """Units compared on the primary metric."""
    p_value: float = 1.0
    """Largest of superiority and guard p-values."""
    adjusted_p: float = 1.0
    """After Holm over every challenger launched that night."""
    harm_p_value: float | None = None
    """Small when it is shown to be worse than the champion on the primary metric."""
    guards: tuple[GuardResult, ...] = ()
    """In the policy's order."""
    slices: tuple[SliceResult, ...] = ()
    """Judged slices."""
    unjudged_slices: tuple[str, ...] = ()
    """Slices too small to judge on their own."""
    fresh_gain: float | None = None
    """Gain on items that no earlier verdict used."""
    fresh_units: int = 0
    """Units those items belong to."""
    more_units: int | None = None
    """Further units it would take to tell, at the estimates found; None where more would not help."""
    more_items: int | None = None
    """The same in items."""


class Verdict(Stored):
    """The outcome of a night."""

    decision: Decision
    """promote names a winner; otherwise the champion stays."""
    winner: str | None
    """Version to release, or None."""
    reasons: tuple[str, ...]
    """Plain sentences with numbers."""
    champion: str
    """Who was live when it was decided."""
    challengers: tuple[ChallengerVerdict, ...]
    """Sorted by version."""
    alpha: float
    """Error rate of this night."""
    floor: float
    """Gain that had to be exceeded."""
    flips: int
    """Random sign flips drawn per test."""
    needs_approval: bool
    """Whether a person must agree before the release."""
    primary: str
    """Metric it was decided on."""
    scorecard_digest: str
    """What it was decided from."""
    policy_digest: str
    """By which rules."""
