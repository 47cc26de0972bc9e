"""Judge a canary: a pure function from frozen rows, policy and time to forward, back, or keep watching.

Nothing is remembered between looks: the same rows give the same judgement on any machine, so it can be recomputed
years later. The rows are one score per randomised user, frozen a fixed time after the user was first seen, in the
order in which they froze. docs/guarantees.md states what is promised; deploy/canary/sequential_tests.py holds the
tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from deploy.canary.policy import CanaryPolicy
from deploy.canary.units import FrozenUnit, Observations
from deploy.ledger.evidence import Evidence
from deploy.ledger.state import Watch
from infra.stored_model import Stored

Decision = Literal["watch", "step", "forward", "back", "incident", "deadline", "settle"]

# Wealth at which "one arm's users are rated more often" is reported (it is a remark, never a verdict).
_REMARKABLE = math.log(1000.0)


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

    @property
    def evidence(self) -> Evidence:
        """What the ledger keeps of it."""
        return Evidence.model_validate(self.model_dump(mode="json"))


@dataclass(frozen=True)
class _Statistics:
    """Both sequential tests on the frozen units."""

    version: tuple[int, int]
    """Rated units of the version and those of them that complained."""
    control: tuple[int, int]
    """The same of control."""
    difference: float | None
    back: float
    """Greatest log wealth so far against "changes nothing"."""
    crossed_after: int | None
    forward: float
    """Greatest log wealth so far against "worse by the margin or more"."""
    rated_more: bool


@dataclass(frozen=True)
class _Judgement:
    decision: Decision
    reason: str
    crossed_after: int | None = None
    signal: str | None = None
    next_share: float | None = None


def assess(watch: Watch, observed: Observations, policy: CanaryPolicy, *, at: datetime) -> Assessment:
    """Decide what should happen to the open watch, given everything frozen by `at`."""
    from deploy.canary.sequential_tests import log_wealth_counts

    statistics = _statistics(observed.units, policy)
    misassigned = log_wealth_counts([(n.treated, n.both, n.share) for n in observed.assigned_by_share]) >= _REMARKABLE
    judgement = (
        _judge_harm(watch, observed, policy, statistics)
        or (_judge_holdback(watch, observed, policy, at) if watch.phase == "holdback" else None)
        or _judge_canary(watch, observed, policy, statistics, at, misassigned=misassigned)
    )
    return Assessment(
        decision=judgement.decision,
        reason=judgement.reason,
        rated=len(observed.units),
        version=_report(observed.assigned[0], statistics.version),
        control=_report(observed.assigned[1], statistics.control),
        difference=statistics.difference,
        evidence_back=statistics.back,
        needed_back=_needed(policy.alpha("ratings")),
        evidence_forward=statistics.forward,
        needed_forward=_needed(policy.alpha_forward),
        crossed_after=judgement.crossed_after,
        signal=judgement.signal,
        next_share=judgement.next_share,
        misassigned=misassigned,
        left_out=observed.left_out,
        rated_more=statistics.rated_more,
    )


def _statistics(units: Sequence[FrozenUnit], policy: CanaryPolicy) -> _Statistics:
    import numpy as np

    from deploy.canary.sequential_tests import (
        log_wealth_not_worse,
        log_wealth_ratio,
        log_wealth_worse,
        weighted_difference,
    )

    complaint = np.array([unit.complaint for unit in units], dtype=bool)
    treated = np.array([unit.treated for unit in units], dtype=bool)
    share = np.array([unit.share for unit in units], dtype=float)
    needed = _needed(policy.alpha("ratings"))
    worse = np.maximum.accumulate(log_wealth_worse(complaint, treated, share, cap=policy.influence_cap))
    not_worse = log_wealth_not_worse(complaint, treated, share, margin=policy.margin)
    return _Statistics(
        version=(int(treated.sum()), int((treated & complaint).sum())),
        control=(int((~treated).sum()), int((~treated & complaint).sum())),
        difference=float(np.mean(weighted_difference(complaint, treated, share))) if len(units) else None,
        # Wealth starts at 1, before anybody has rated.
        back=float(np.max(worse, initial=0.0)),
        crossed_after=int(np.argmax(worse >= needed)) + 1 if len(units) and worse[-1] >= needed else None,
        forward=float(np.max(not_worse, initial=0.0)),
        rated_more=bool(len(units) and np.max(log_wealth_ratio(treated, share)) >= _REMARKABLE),
    )


def _report(assigned: int, counts: tuple[int, int]) -> ArmReport:
    return ArmReport(assigned=assigned, rated=counts[0], complaints=counts[1])


def _judge_harm(
    watch: Watch, observed: Observations, policy: CanaryPolicy, statistics: _Statistics
) -> _Judgement | None:
    """Suspend verdicts while both arms fail together; take the version back where a signal says that it is worse."""
    both = _both_failing(observed.units, policy, observed.usual_complaints)
    if both is not None:
        return _Judgement("incident", both)
    crossed, needed = statistics.crossed_after, _needed(policy.alpha("ratings"))
    if crossed is not None:
        return _Judgement(
            "back",
            f"after {crossed} rated users, complaints say it is worse (estimate {statistics.difference:+.1%}; "
            f"evidence {math.exp(min(statistics.back, 50)):.3g}, needed {math.exp(needed):.3g})",
            crossed_after=crossed,
            signal="ratings",
        )
    if watch.phase != "holdback":
        return None
    bad_night = rescore_verdict(observed.rescore_p_values, policy.alpha("rescore"))
    return None if bad_night is None else _Judgement("back", bad_night, signal="rescore")


def _judge_holdback(watch: Watch, observed: Observations, policy: CanaryPolicy, at: datetime) -> _Judgement:
    if (at - watch.step_at).total_seconds() >= policy.holdback_seconds:
        return _Judgement("settle", f"the holdback of {policy.holdback_seconds:g} s is over without harm seen")
    return _Judgement("watch", f"live; the holdback goes on, {len(observed.units)} users have rated")


def _judge_canary(
    watch: Watch,
    observed: Observations,
    policy: CanaryPolicy,
    statistics: _Statistics,
    at: datetime,
    *,
    misassigned: bool,
) -> _Judgement:
    """Promote, raise the share, or go on watching until the deadline."""
    if misassigned:
        return _Judgement("watch", "the arms' users do not fit their shares: routing is broken, nothing goes forward")
    rated, difference, forward = len(observed.units), statistics.difference, statistics.forward
    needed = _needed(policy.alpha_forward)
    age = (at - watch.opened_at).total_seconds()
    fair = (difference or 0.0) > -policy.margin
    following = next((value for value in policy.shares if value > watch.share + 1e-9), None)
    if following is None and forward >= needed and age >= policy.minimum_seconds and fair:
        return _Judgement(
            "forward",
            f"after {rated} rated users it is not worse than {watch.previous} by {policy.margin:.0%} "
            f"(estimate {difference:+.1%}; evidence {math.exp(min(forward, 50)):.3g}, "
            f"needed {math.exp(needed):.3g}), and the watch is {age:.0f} s old",
        )
    # Before the deadline, because a larger share is what an undecided watch needs.
    if following is not None and (at - watch.step_at).total_seconds() >= policy.step_seconds:
        at_step = sum(unit.treated and unit.first_seen >= watch.step_at for unit in observed.units)
        if at_step >= policy.step_units and fair:
            return _Judgement(
                "step",
                f"{at_step} rated users at {watch.share:.0%}, estimate {difference or 0.0:+.1%}: on to {following:.0%}",
                next_share=following,
            )
    if age >= policy.deadline_seconds:
        return _Judgement(
            "deadline",
            f"no verdict after {age:.0f} s and {rated} rated users (deadline {policy.deadline_seconds:g} s)",
        )
    missing = [] if forward >= needed else ["evidence that it is not worse"]
    missing += [] if age >= policy.minimum_seconds else [f"{policy.minimum_seconds - age:.0f} s of watching"]
    missing += [] if following is None else [f"the step to {following:.0%}"]
    missing += [] if fair else [f"an estimate above {-policy.margin:.0%}"]
    return _Judgement("watch", f"{rated} users have rated; still wanted: {', '.join(missing)}")


def rescore_verdict(p_values: Sequence[float], alpha: float) -> str | None:
    """Return why the nights' re-scoring of the live champion takes it back, or None.

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
