"""The canary's judgement: a pure function from frozen rows, policy and time to forward, back, or keep watching.

Nothing is remembered between looks: the same rows give the same judgement on any machine, so it can be recomputed
years later. The rows are one score per randomised user, frozen a fixed time after the user was first seen, in the
order in which they froze. docs/guarantees.md states what is promised; deploy/canary/sequential_tests.py holds the
tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.state import Watch
from infra.stored_model import Stored

if TYPE_CHECKING:
    from feedback.store.rated_units import RatedUnit

Decision = Literal["watch", "step", "forward", "back", "incident", "deadline", "settle"]

# Wealth at which "one arm's users are rated more often" is reported (it is a remark, never a verdict).
_REMARKABLE = math.log(1000.0)


@dataclass(frozen=True)
class FrozenUnit:
    """One randomised user with a frozen score, on the side of the watch that it is compared on."""

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
        return self.score < 0.5


class ArmReport(Stored):
    """One arm, counted."""

    assigned: int
    """Units that the arm answered."""
    rated: int
    """Units with a frozen score."""
    complaints: int
    """Of those, the ones that complained."""

    @property
    def complaints_per_rated(self) -> float | None:
        """Complaints among rated units; None without any."""
        return self.complaints / self.rated if self.rated else None

    @property
    def complaints_per_assigned(self) -> float | None:
        """Complaints among all units the arm answered; None without any."""
        return self.complaints / self.assigned if self.assigned else None


class Assessment(Stored):
    """What the rows say now."""

    decision: Decision
    """watch, step (to `next_share`), forward, back, incident, deadline, or settle (the holdback is over)."""
    reason: str
    """Why, in one sentence, with the figures."""
    rated: int
    """Frozen units of both arms."""
    version: ArmReport
    """The version under watch."""
    control: ArmReport
    """The version it is compared with."""
    difference: float | None
    """Estimated share of satisfied users, version minus control; None before any."""
    evidence_back: float
    """Greatest log wealth so far against "changes nothing"."""
    needed_back: float
    """Log wealth at which it goes back, ln(1/alpha)."""
    evidence_forward: float
    """Greatest log wealth so far against "worse by the margin or more"."""
    needed_forward: float
    """Log wealth at which it may go forward."""
    crossed_after: int | None = None
    """Frozen units after which the rollback was decided."""
    signal: str | None = None
    """The signal that took it back."""
    next_share: float | None = None
    """For step: the next share."""
    misassigned: bool = False
    """The arms' counts of users do not fit their shares: routing is broken, so nothing goes forward on this."""
    left_out: int = 0
    """Rated users left out as a flood of ratings, blind to the arm (deploy/canary/rating_filter.py)."""
    rated_more: bool = False
    """Users of one arm are rated more often: a difference in thumbs may be one of who rates. Reported, no verdict."""

    def facts(self) -> dict[str, Any]:
        """The evidence to write into the ledger."""
        return self.model_dump(mode="json")


def units_of(
    watch: Watch, rows: Mapping[int, Iterable[RatedUnit]], *, frozen_before: datetime
) -> tuple[FrozenUnit, ...]:
    """The frozen rows of a watch, in the order in which they froze, one per unit.

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


def assess(
    watch: Watch,
    units: Sequence[FrozenUnit],
    policy: CanaryPolicy,
    *,
    at: datetime,
    assigned: tuple[int, int] = (0, 0),
    dealt: Sequence[tuple[int, int, float]] = (),
    left_out: int = 0,
    rescored: Sequence[float] = (),
    usual_complaints: float | None = None,
) -> Assessment:
    """What should happen to the open watch, given everything frozen by `at`.

    Args:
        units: from `units_of`.
        assigned: units answered by the version and by control, for the report.
        dealt: (units of the version, units of both, share) for each share so far, for the sample-ratio check.
        left_out: rated units that the filter of floods left out, for the report.
        rescored: p-values of "not worse than its predecessor", one per night that re-scored the live champion.
        usual_complaints: the champion's complaint rate before the watch; without it, the watch's own beginning.
    """
    import numpy as np

    from deploy.canary.sequential_tests import (
        log_wealth_counts,
        log_wealth_not_worse,
        log_wealth_ratio,
        log_wealth_worse,
        weighted_difference,
    )

    complaint = np.array([unit.complaint for unit in units], dtype=bool)
    treated = np.array([unit.treated for unit in units], dtype=bool)
    share = np.array([unit.share for unit in units], dtype=float)
    needed_back, needed_forward = _needed(policy.alpha("ratings")), _needed(policy.alpha_forward)

    worse = np.maximum.accumulate(log_wealth_worse(complaint, treated, share, cap=policy.influence_cap))
    not_worse = log_wealth_not_worse(complaint, treated, share, margin=policy.margin)
    crossed = int(np.argmax(worse >= needed_back)) + 1 if len(units) and worse[-1] >= needed_back else None
    difference = float(np.mean(weighted_difference(complaint, treated, share))) if len(units) else None
    # Wealth starts at 1, before anybody has rated.
    back, forward = float(np.max(worse, initial=0.0)), float(np.max(not_worse, initial=0.0))

    misassigned = log_wealth_counts(dealt) >= _REMARKABLE

    def conclude(decision: Decision, reason: str, **more: Any) -> Assessment:
        return Assessment(
            decision=decision,
            reason=reason,
            rated=len(units),
            version=ArmReport(
                assigned=assigned[0], rated=int(treated.sum()), complaints=int((treated & complaint).sum())
            ),
            control=ArmReport(
                assigned=assigned[1], rated=int((~treated).sum()), complaints=int((~treated & complaint).sum())
            ),
            difference=difference,
            evidence_back=back,
            needed_back=needed_back,
            evidence_forward=forward,
            needed_forward=needed_forward,
            misassigned=misassigned,
            left_out=left_out,
            rated_more=bool(len(units) and np.max(log_wealth_ratio(treated, share)) >= _REMARKABLE),
            **more,
        )

    bad_night = rescore_verdict(rescored, policy.alpha("rescore")) if watch.phase == "holdback" else None
    both = _both_failing(units, policy, usual_complaints)
    age = (at - watch.opened_at).total_seconds()
    if both is not None:
        return conclude("incident", both)
    if crossed is not None:
        return conclude(
            "back",
            f"after {crossed} rated users, complaints say it is worse (estimate {difference:+.1%}; "
            f"evidence {math.exp(min(back, 50)):.3g}, needed {math.exp(needed_back):.3g})",
            crossed_after=crossed,
            signal="ratings",
        )
    if bad_night is not None:
        return conclude("back", bad_night, signal="rescore")
    if watch.phase == "holdback":
        held = (at - watch.step_at).total_seconds()
        if held >= policy.holdback_seconds:
            return conclude("settle", f"the holdback of {policy.holdback_seconds:g} s is over without harm seen")
        return conclude("watch", f"live; the holdback goes on, {len(units)} users have rated")
    if misassigned:
        return conclude("watch", "the arms' users do not fit their shares: routing is broken, nothing goes forward")
    fair = (difference or 0.0) > -policy.margin
    following = next((value for value in policy.shares if value > watch.share + 1e-9), None)
    if following is None and forward >= needed_forward and age >= policy.minimum_seconds and fair:
        return conclude(
            "forward",
            f"after {len(units)} rated users it is not worse than {watch.previous} by {policy.margin:.0%} "
            f"(estimate {difference:+.1%}; evidence {math.exp(min(forward, 50)):.3g}, "
            f"needed {math.exp(needed_forward):.3g}), and the watch is {age:.0f} s old",
        )
    # Before the deadline, because a larger share is what an undecided watch needs.
    if following is not None and (at - watch.step_at).total_seconds() >= policy.step_seconds:
        at_step = sum(unit.treated and unit.first_seen >= watch.step_at for unit in units)
        if at_step >= policy.step_units and fair:
            return conclude(
                "step",
                f"{at_step} rated users at {watch.share:.0%}, estimate {difference or 0.0:+.1%}: on to {following:.0%}",
                next_share=following,
            )
    if age >= policy.deadline_seconds:
        return conclude(
            "deadline",
            f"no verdict after {age:.0f} s and {len(units)} rated users (deadline {policy.deadline_seconds:g} s)",
        )
    missing = [] if forward >= needed_forward else ["evidence that it is not worse"]
    missing += [] if age >= policy.minimum_seconds else [f"{policy.minimum_seconds - age:.0f} s of watching"]
    missing += [] if following is None else [f"the step to {following:.0%}"]
    missing += [] if fair else [f"an estimate above {-policy.margin:.0%}"]
    return conclude("watch", f"{len(units)} users have rated; still wanted: {', '.join(missing)}")


def frozen_before(policy: CanaryPolicy, at: datetime) -> datetime:
    """Units first seen up to here have scores that can no longer change."""
    return at - timedelta(seconds=policy.window_seconds)


def rescore_verdict(p_values: Sequence[float], alpha: float) -> str | None:
    """Why the nights' re-scoring of the live champion takes it back, or None.

    Night j (from 1) is tested at alpha 6 / (pi j)^2: the sum over all nights is alpha, under any dependence.
    """
    for night, p_value in enumerate(p_values, start=1):
        level = alpha * 6.0 / (math.pi * night) ** 2
        if p_value <= level:
            return f"re-scored on new gate items it is worse than its predecessor (p = {p_value:.2g} <= {level:.2g})"
    return None


def _needed(alpha: float) -> float:
    return math.log(1.0 / alpha) if alpha > 0 else math.inf


def _both_failing(units: Sequence[FrozenUnit], policy: CanaryPolicy, usual: float | None) -> str | None:
    """Whether the latest users of both arms complain far more than usual: the fault then lies elsewhere."""
    size = policy.incident_units
    arms = [[unit for unit in units if unit.treated is side] for side in (True, False)]
    rates = []
    for arm in arms:
        if len(arm) < size:
            return None
        rates.append(sum(unit.complaint for unit in arm[-size:]) / size)
    if usual is None:
        earlier = arms[1][:-size]
        if len(earlier) < size:
            return None
        usual = sum(unit.complaint for unit in earlier) / len(earlier)
    # Two standard errors of a share of `size`, so that a small sample's luck is no incident.
    needed = min(usual + policy.incident_rise, 0.99) + 2.0 * math.sqrt(usual * (1.0 - usual) / size)
    if min(rates) >= needed:
        return (
            f"both versions fail together: of the latest {size} rated users of each, {rates[0]:.0%} (version) and "
            f"{rates[1]:.0%} (control) complain, usual is {usual:.0%}; no verdict while this lasts"
        )
    return None
