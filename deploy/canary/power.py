"""Compute the power of a canary policy before its deadline, and the rated users that it takes.

The delay is Wald's: log wealth grows by g = s KL(q1 || q) + (1 - s) KL(q0 || q) per rated user on average, so the
level ln(1/alpha) is reached after about ln(1/alpha) / g of them (GUARANTEES: at most 1.5 times that, simulated in
benchmarks/canary_simulation.py).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from deploy.canary.policy import CanaryPolicy
from infra.settings import Config

# The mixtures' price and overshoot, as a multiple of ln(1/alpha); measured by benchmarks/canary_simulation.py.
_PRICE_BACK = 1.15
_PRICE_FORWARD = 1.35


class CanaryPlan(Config):
    """What a policy can see, given the traffic."""

    rated_by_deadline: int
    """Rated users of both arms before the deadline."""
    formula_back: int
    """ln(1/alpha)/g: rated users until a version worse by `drop` goes back, at the last step's share."""
    required_back: int
    """Rated users with which it goes back with 80% power."""
    required_forward: int
    """Rated users with which an equal version goes forward with 80% power."""
    power_back: float
    """Chance that a version worse by `drop` goes back before the deadline."""
    power_forward: float
    """Chance that an equal version goes forward before the deadline."""


def growth_back(share: float, satisfied: float, drop: float) -> float:
    """Compute the expected log growth per rated user of the rollback test against a version worse by `drop`."""
    mean, _ = _moments_back(share, satisfied, drop)
    return mean


def formula_units(share: float, satisfied: float, drop: float, alpha: float) -> float:
    """Compute ln(1/alpha) / g: the delay's yardstick, in rated users."""
    return math.log(1.0 / alpha) / growth_back(share, satisfied, drop)


def plan(
    policy: CanaryPolicy, *, rated_per_day: float, satisfied: float = 0.8, drop: float = 0.1, power: float = 0.8
) -> CanaryPlan:
    """Compute the power of `policy` before its deadline, if `rated_per_day` users rate and steps are on time.

    Args:
        satisfied: the champion's share of satisfied rated users, in (0, 1).
        drop: how much worse the version is that must go back.
        power: for the required numbers.
    """
    shares = _shares_of_users(policy, rated_per_day)
    total = sum(count for count, _ in shares)
    last = policy.shares[-1]
    mean_back = var_back = mean_forward = var_forward = 0.0
    for count, share in shares:
        mean, variance = _moments_back(share, satisfied, drop)
        mean_back, var_back = mean_back + count * mean, var_back + count * variance
        mean, variance = _moments_forward(share, satisfied, policy.margin)
        mean_forward, var_forward = mean_forward + count * mean, var_forward + count * variance
    level_back = _level(policy.alpha("ratings")) * _PRICE_BACK
    level_forward = _level(policy.alpha_forward) * _PRICE_FORWARD
    return CanaryPlan(
        rated_by_deadline=int(total),
        formula_back=_whole(formula_units(last, satisfied, drop, max(policy.alpha("ratings"), 1e-12))),
        required_back=_whole(_required(*_moments_back(last, satisfied, drop), level_back, power)),
        required_forward=_whole(_required(*_moments_forward(last, satisfied, policy.margin), level_forward, power)),
        power_back=_crossing(mean_back, var_back, level_back),
        power_forward=_crossing(mean_forward, var_forward, level_forward),
    )


def _shares_of_users(policy: CanaryPolicy, rated_per_day: float) -> list[tuple[float, float]]:
    """(rated users, share) of each step until the deadline."""
    per_second, left = rated_per_day / 86_400.0, max(policy.deadline_seconds - policy.window_seconds, 0.0)
    result = []
    for share in policy.shares[:-1]:
        waiting = policy.step_units / max(share * per_second, 1e-12) + policy.window_seconds
        length = min(max(policy.step_seconds, waiting), left)
        result.append((length * per_second, share))
        left -= length
    return [*result, (left * per_second, policy.shares[-1])]


def _moments_back(share: float, satisfied: float, drop: float) -> tuple[float, float]:
    """Mean and variance, per rated user, of the log factor that bets on the true rates."""
    control, version = satisfied, max(satisfied - drop, 1e-3)
    pooled = share * version + (1 - share) * control
    outcomes = [
        (share * version, math.log(version / pooled)),
        (share * (1 - version), math.log((1 - version) / (1 - pooled))),
        ((1 - share) * control, math.log(control / pooled)),
        ((1 - share) * (1 - control), math.log((1 - control) / (1 - pooled))),
    ]
    mean = sum(chance * value for chance, value in outcomes)
    return mean, sum(chance * (value - mean) ** 2 for chance, value in outcomes)


def _moments_forward(share: float, satisfied: float, margin: float) -> tuple[float, float]:
    """The same for the forward test when both arms are equal, at the stake that grows fastest (mean / variance)."""
    spread = satisfied * (1 - satisfied) / (share * (1 - share))
    stake = margin / (spread + margin**2)
    mean = stake * margin - stake**2 * (spread + margin**2) / 2
    return mean, stake**2 * spread


def _required(mean: float, variance: float, level: float, power: float) -> float:
    """Users n with n mean - z sqrt(n variance) = level."""
    z = NormalDist().inv_cdf(power)
    root = (z * math.sqrt(variance) + math.sqrt(z * z * variance + 4 * mean * level)) / (2 * mean)
    return root**2


def _crossing(mean: float, variance: float, level: float) -> float:
    """Chance that a normal walk with this total mean and variance ever passed `level` (reflection principle)."""
    if mean <= 0 or variance <= 0 or math.isinf(level):
        return 0.0
    spread, normal = math.sqrt(variance), NormalDist()
    tail = normal.cdf((mean - level) / spread)
    exponent = 2 * mean * level / variance
    reflected = normal.cdf((-mean - level) / spread)
    extra = math.exp(exponent + math.log(reflected)) if reflected > 0 else 0.0
    return min(1.0, tail + extra)


def _level(alpha: float) -> float:
    return math.log(1.0 / alpha) if alpha > 0 else math.inf


def _whole(value: float) -> int:
    return math.ceil(value) if math.isfinite(value) else 10**12
