"""Compute the power of each tenant's canary before its deadline, by the ratings that come in: for `config check`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from deploy.canary.policy import CanaryPolicy
from deploy.canary.power import plan
from deploy.ledger.ledger import RefusedTransition, current
from feedback.store.rated_units import rated_units
from flows.config.pipeline import PipelineConfig
from infra.database.connect import connect, now
from infra.database.schema import check, state_of

DAYS = 7.0
"""How far back ratings are counted."""


def describe_canary_power(config: PipelineConfig) -> list[str]:
    """Say, a sentence a tenant, whether its ratings suffice for a release to be decided before the deadline."""
    return [f"tenant {tenant}: {_tenant_power(config, tenant)}" for tenant in config.tenants]


def canary_power(policy: CanaryPolicy, rated_per_day: float, whence: str) -> str:
    """Say the power of a policy at so many rated users a day of both arms together."""
    power = plan(policy, rated_per_day=rated_per_day, satisfied=policy.expected_satisfied, drop=policy.worth_seeing)
    enough = min(power.power_back, power.power_forward) >= 0.8
    return (
        f"at {rated_per_day:.3g} rated users a day ({whence}) a canary sends a version worse by "
        f"{policy.worth_seeing:.0%} back with {power.power_back:.0%} power before its deadline of "
        f"{policy.deadline_seconds / 86_400:g} days, and an equal one forward with {power.power_forward:.0%}"
        + ("" if enough else "; 80% is what to plan for: a later deadline, larger steps or more ratings")
    )


def rated_per_day(config: PipelineConfig, tenant: str) -> float | None:
    """Count the users a day who rated the tenant's live version in the last days; None where nobody did."""
    engine = connect(config.places.database)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return None  # to look must not make a database
    try:
        with engine.connect() as connection:
            if state_of(connection).kind == "empty":
                return None
        check(engine)
        standing, today = current(engine, tenant), now()
        rated = [unit.first_seen for unit in rated_units(engine, tenant, standing.release_seq)]
    except (SQLAlchemyError, RefusedTransition):
        return None  # away, of a pipeline that never ran, or of another release's lines
    finally:
        engine.dispose()
    lately = [at for at in rated if at >= today - timedelta(days=DAYS)]
    if not lately:
        return None
    days = min(DAYS, max(1.0, (today - min(lately)).total_seconds() / 86_400))
    return len(lately) / days


def _tenant_power(config: PipelineConfig, tenant: str) -> str:
    policy = config.canary
    if policy.expected_rated_per_day is not None:
        return canary_power(policy, policy.expected_rated_per_day, "as expected_rated_per_day says")
    measured = rated_per_day(config, tenant)
    if measured is None:
        return (
            "nobody has rated answers lately, so whether a canary is decided before its deadline is not known; "
            "canary.expected_rated_per_day has it checked beforehand"
        )
    return canary_power(policy, measured, f"of the last {DAYS:g} days")
