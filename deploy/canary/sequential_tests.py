"""Compute anytime-valid sequential tests (e-processes): checking after every user does not inflate the error rate.

Both turn a stream of rated users into a wealth process that is a nonnegative (super)martingale from 1 when the null
hypothesis holds. By Ville's inequality it ever reaches 1/alpha with chance at most alpha, so looking often costs
nothing (Ramdas, Grünwald, Vovk, Shafer: Game-theoretic statistics and safe anytime-valid inference, 2210.01948;
testing by betting with mixtures: Ramdas, Ruf, Larsson, Koolen, 2106.02693).

Arrays have shape (..., n): the last axis is users in the order in which their scores were frozen, the axes before it
are independent streams (the benchmark simulates thousands at once; the controller has one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Differences in complaint rate (treated minus control) that the rollback test bets on, in equal parts.
DIFFERENCES = (0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.45, 0.65)
# Parts of the largest safe bet that the forward test stakes, in equal parts.
FRACTIONS = (0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 0.85)
# Odds ratios of being rated (treated against control) that the propensity report bets on, in equal parts.
ODDS = (1 / 3, 1 / 2, 2 / 3, 3 / 2, 2.0, 3.0)
_EDGE = 1e-3


def predicted_rate(complaint: Bools) -> Floats:
    """Predict each user's complaint rate from those before, arms pooled (Krichevsky-Trofimov: half a user each).

    Any forecast made before the arm is known keeps the tests valid; a good one makes them fast.
    """
    before: Floats = np.cumsum(complaint, axis=-1, dtype=np.float64) - complaint
    seen = np.arange(complaint.shape[-1])
    return np.asarray((before + 0.5) / (seen + 1.0), dtype=np.float64)


def log_wealth_worse(complaint: Bools, treated: Bools, share: Floats, *, cap: float) -> Floats:
    """Log wealth against "the version changes nothing", betting that treated users complain more.

    Under that null, given any outcome, a rated user is treated with exactly the chance `share` with which it was
    assigned. A bet on the difference d, with r the predicted pooled rate, says that control complains at
    c0 = r - share d and treated at c1 = r + (1 - share) d, so that by Bayes a complaint comes from the treated arm with
    chance share c1 / (share c1 + (1 - share) c0), and a satisfied user likewise. Its wealth is multiplied by that
    chance over `share`; the expectation under the null is 1 whatever c0 and c1 are. Conditioning on the outcome
    makes it proof against drifting mood and ramps. For the true rates the expected log growth per user is
    share KL(c1 || r) + (1 - share) KL(c0 || r), and no test grows faster (Kelly).

    Args:
        complaint, treated: (..., n).
        share: (..., n) chance of the treated arm for each user, in (0, 1).
        cap: most by which one user may multiply or divide the wealth; bets are made smaller, so they stay fair.

    Returns:
        (..., n) log wealth after each user.
    """
    rate = predicted_rate(complaint)
    # (K, ..., n): one stake per difference.
    gaps = np.asarray(DIFFERENCES).reshape((-1, *([1] * complaint.ndim)))
    control = np.clip(rate - share * gaps, _EDGE, 1 - _EDGE)
    version = np.clip(rate + (1 - share) * gaps, _EDGE, 1 - _EDGE)
    like_version = np.where(complaint, version, 1 - version)
    like_control = np.where(complaint, control, 1 - control)
    pooled = share * like_version + (1 - share) * like_control
    if_treated, if_control = like_version / pooled, like_control / pooled
    high, low = np.maximum(if_treated, if_control), np.minimum(if_treated, if_control)
    # high >= 1 >= low, because share and 1 - share weigh them to 1.
    shrink = np.minimum(
        np.minimum(1.0, (cap - 1.0) / np.maximum(high - 1.0, 1e-12)), (1.0 - 1.0 / cap) / np.maximum(1.0 - low, 1e-12)
    )
    factor = 1.0 + shrink * (np.where(treated, if_treated, if_control) - 1.0)
    return _mix(np.log(factor))


def log_wealth_not_worse(complaint: Bools, treated: Bools, share: Floats, *, margin: float) -> Floats:
    """Log wealth against "the version satisfies fewer users, by `margin` or more", betting that it does not.

    With u = 1 for a satisfied user and m the predicted share of satisfied ones, the weighted difference
    x = (treated/share - control/(1 - share)) (u - m) has the true difference as its expectation, given everything
    before (inverse propensity weights with a control variate). Under the null E[x + margin] <= 0, and x is bounded
    below by -b, so 1 + f (x + margin) / (b - margin) with 0 <= f < 1 is a nonnegative supermartingale factor
    (Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2010.09686). Stakes f are mixed.

    Returns:
        (..., n) log wealth after each user.
    """
    satisfied = 1.0 - np.clip(predicted_rate(complaint), 0.02, 0.98)
    weight = np.where(treated, 1.0 / share, -1.0 / (1.0 - share))
    difference = weight * ((~complaint) - satisfied)
    bound = np.maximum(satisfied / share, (1.0 - satisfied) / (1.0 - share))
    fractions = np.asarray(FRACTIONS).reshape((-1, *([1] * complaint.ndim)))
    room = np.maximum(bound - margin, 0.05)
    return _mix(np.log1p(fractions * np.maximum((difference + margin) / room, -1.0)))


def log_wealth_ratio(treated: Bools, share: Floats) -> Floats:
    """Log wealth against "users of both arms are rated alike often", betting that one arm's are rated more.

    A sequential sample-ratio test in the manner of Lindon and Malek (2011.03567), with known, changing shares.
    """
    odds = np.asarray(ODDS).reshape((-1, *([1] * treated.ndim)))
    tilted = odds * share / (odds * share + 1.0 - share)
    return _mix(np.log(np.where(treated, tilted / share, (1.0 - tilted) / (1.0 - share))))


def log_wealth_counts(assigned: Sequence[tuple[int, int, float]]) -> float:
    """Log wealth against "users are assigned to arms by their shares", from counts; 0 without any.

    For each share s, of n users k were treated. Betting on a Beta(2s, 2(1 - s)) mixture of true shares multiplies the
    wealth by B(k + 2s, n - k + 2(1 - s)) / B(2s, 2(1 - s)) / (s^k (1 - s)^(n - k)), a martingale in the users' order
    under the null (Lindon and Malek, 2011.03567, with their Dirichlet prior); different shares multiply.

    Args:
        assigned: (treated, both arms, share) for each share.
    """
    total = 0.0
    for treated, both, share in assigned:
        if both <= 0 or not 0.0 < share < 1.0:
            continue
        a, b = 2.0 * share, 2.0 * (1.0 - share)
        total += _log_beta(treated + a, both - treated + b) - _log_beta(a, b)
        total -= treated * math.log(share) + (both - treated) * math.log(1.0 - share)
    return total


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def weighted_difference(complaint: Bools, treated: Bools, share: Floats) -> Floats:
    """Weight each user's part in the estimate of (satisfied, treated) - (satisfied, control); the mean is unbiased."""
    satisfied = 1.0 - predicted_rate(complaint)
    return np.asarray(np.where(treated, 1.0 / share, -1.0 / (1.0 - share)) * ((~complaint) - satisfied))


def _mix(log_factors: Floats) -> Floats:
    """Equal parts of the stake on each bet: a mean of martingales is one."""
    totals = np.cumsum(log_factors, axis=-1)
    top = totals.max(axis=0)
    return np.asarray(top + np.log(np.mean(np.exp(totals - top), axis=0)))
