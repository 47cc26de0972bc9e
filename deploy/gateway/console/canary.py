"""Draw the open watch as curves: the evidence after every rated user, and the boundaries where something happens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from deploy.canary.assess import Assessment
from deploy.canary.policy import CanaryPolicy
from deploy.canary.units import FrozenUnit
from deploy.controller.canary_watch import assess_watch, policy_in_force, rated_units
from deploy.ledger.ledger import current
from deploy.ledger.state import Watch
from infra.database.connect import now
from infra.settings import Config

POINTS = 400
"""Most points of a curve; longer ones are thinned, their last point kept."""


class Curve(Config):
    """The open watch with its evidence after every rated unit."""

    now: str
    """When it was computed (ISO 8601)."""
    watch: Watch
    judged: Assessment
    after: tuple[int, ...]
    """Numbers of rated units at which the curves have points."""
    back: tuple[float, ...]
    """Log wealth (natural) against the canary there, the best so far."""
    forward: tuple[float, ...]
    """Log wealth for it."""
    needed_back: float
    """Where it is rolled back."""
    needed_forward: float
    """Where it is promoted."""
    minimum_seconds: float
    deadline_seconds: float
    steps: tuple[float, ...]
    """Shares of traffic."""


def curve(database: Engine, tenant: str, default: CanaryPolicy, *, at: datetime | None = None) -> Curve | None:
    """Compute the curves of a tenant's open watch; None without one."""
    standing = current(database, tenant)
    watch = standing.watch
    if watch is None:
        return None
    at, policy = at or now(), policy_in_force(database, standing, default)
    judged = assess_watch(database, standing, watch, policy, at)
    back, forward = wealth(rated_units(database, tenant, watch, policy, at), policy)
    kept = thinned(len(back), POINTS)
    return Curve(
        now=at.isoformat(),
        watch=watch,
        judged=judged,
        after=tuple(index + 1 for index in kept),
        back=tuple(back[index] for index in kept),
        forward=tuple(forward[index] for index in kept),
        needed_back=judged.needed_back,
        needed_forward=judged.needed_forward,
        minimum_seconds=policy.minimum_seconds,
        deadline_seconds=policy.deadline_seconds,
        steps=policy.shares,
    )


def wealth(units: tuple[FrozenUnit, ...], policy: CanaryPolicy) -> tuple[list[float], list[float]]:
    """(evidence that it is worse, evidence that it is not worse) after each unit, as log wealth; the former's best."""
    if not units:
        return [], []
    import numpy as np

    from deploy.canary.sequential_tests import log_wealth_not_worse, log_wealth_worse

    complaint = np.array([unit.complaint for unit in units], dtype=bool)
    treated = np.array([unit.treated for unit in units], dtype=bool)
    share = np.array([unit.share for unit in units], dtype=float)
    worse = np.maximum.accumulate(log_wealth_worse(complaint, treated, share, cap=policy.influence_cap))
    not_worse = np.maximum.accumulate(log_wealth_not_worse(complaint, treated, share, margin=policy.margin))
    # Wealth begins at 1: nothing below that was ever the best.
    return [round(max(0.0, float(v)), 5) for v in worse], [round(max(0.0, float(v)), 5) for v in not_worse]


def thinned(count: int, limit: int) -> list[int]:
    """At most about `limit` indices of `range(count)`, evenly spread, the last one among them."""
    step = max(1, -(-count // limit))
    return sorted({*range(0, count, step), *([count - 1] if count else [])})
