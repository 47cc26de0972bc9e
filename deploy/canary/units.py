"""Collect what a canary is judged by: one frozen score per randomised user, and the counts beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.state import Watch

if TYPE_CHECKING:
    from feedback.store.rated_units import RatedUnit


@dataclass(frozen=True)
class FrozenUnit:
    """One randomised user with a frozen score, on one side of a comparison."""

    unit: str
    treated: bool
    """Whether the version under watch answered."""
    share: float
    """The chance with which this unit was assigned to the version under watch, in (0, 1)."""
    score: float
    """0 (complaint) to 1; at least one half counts as satisfied."""
    first_seen: datetime
    """When the unit's first request came; the score is frozen a fixed time after it."""

    @property
    def complaint(self) -> bool:
        """Whether the user complained."""
        return self.score < 0.5


@dataclass(frozen=True)
class AssignedCount:
    """Units that were assigned under one share of the canary."""

    treated: int
    """Units of the version under watch."""
    both: int
    """Units of both arms."""
    share: float
    """The chance of the version under watch, in (0, 1)."""


@dataclass(frozen=True)
class Observations:
    """What was observed of an open watch up to a time."""

    units: tuple[FrozenUnit, ...]
    """Frozen units, in the order in which they froze (`frozen_units`)."""
    assigned: tuple[int, int] = (0, 0)
    """Units answered by the version and by control, for the report."""
    assigned_by_share: tuple[AssignedCount, ...] = ()
    """The same for each share of the canary so far, for the sample-ratio check."""
    left_out: int = 0
    """Rated units that the filter of floods left out, for the report."""
    rescore_p_values: tuple[float, ...] = ()
    """P-values of "not worse than its predecessor", one per night that re-scored the live champion."""
    usual_complaints: float | None = None
    """The champion's complaint rate before the watch; without it, the watch's own beginning counts."""


def frozen_units(
    watch: Watch, rows: Mapping[int, Iterable[RatedUnit]], *, frozen_before: datetime
) -> tuple[FrozenUnit, ...]:
    """Return the frozen rows of a watch, in the order in which they froze, one per unit.

    Args:
        rows: release_seq -> rated units of that release, for `opened_seq` and, after promotion, `champion_seq`.
        frozen_before: units first seen after this may still change and are left out.
    """
    arms: dict[int, tuple[str, tuple[str, ...]]] = {watch.opened_seq: ("canary", ("champion", "holdback"))}
    if watch.champion_seq is not None:
        arms[watch.champion_seq] = ("champion", ("holdback",))
    units: dict[str, FrozenUnit] = {}
    for release_seq in sorted(arms):
        version_arm, control_arms = arms[release_seq]
        for row in rows.get(release_seq, ()):
            if row.first_seen > frozen_before or row.unit in units:
                continue  # a unit counts where it was first randomised
            if row.arm == version_arm:
                share = row.probability
            elif row.arm in control_arms:
                share = 1.0 - row.probability
            else:
                continue
            if 0.0 < share < 1.0:
                units[row.unit] = FrozenUnit(row.unit, row.arm == version_arm, share, row.score, row.first_seen)
    return tuple(sorted(units.values(), key=lambda unit: (unit.first_seen, unit.unit)))


def frozen_before(policy: CanaryPolicy, at: datetime) -> datetime:
    """Return the time up to which units first seen have scores that can no longer change."""
    return at - timedelta(seconds=policy.window_seconds)
