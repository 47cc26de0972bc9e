"""Read the units that rated answers given under a release, one score each: what a canary is judged by.

A unit is who was randomised: the user, else the session, else the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, func, select

from feedback.store.tables import feedback, interactions


@dataclass(frozen=True)
class RatedUnit:
    """One randomised unit that said something about answers given to it under one release."""

    unit: str
    arm: str
    probability: float
    score: float
    """Mean of its last words (thumbs as 0 or 1, ratings on 0..1) on 0..1."""
    first_seen: datetime
    rated_at: datetime
    trusted: bool
    """Whether every one of those words came from a trusted actor."""
    ratings: int


def rated_units(database: Engine, tenant: str, release_seq: int, *, window_s: float | None = None) -> list[RatedUnit]:
    """Read the units that rated answers given to them under a release, one score each, in a stable order.

    Only the last word per (interaction, actor, kind) counts, and, with `window_s`, only words received within
    that many seconds of the unit's first interaction. Which words count follows the store's sequence, not clocks.
    """
    first = (
        select(interactions.c.unit, func.min(interactions.c.created_at).label("first_seen"))
        .where(interactions.c.tenant == tenant, interactions.c.release_seq == release_seq)
        .group_by(interactions.c.unit)
        .subquery()
    )
    query = (
        select(
            interactions.c.unit,
            interactions.c.arm,
            interactions.c.probability,
            first.c.first_seen,
            feedback.c.interaction_id,
            feedback.c.actor,
            feedback.c.kind,
            feedback.c.score,
            feedback.c.received_at,
            feedback.c.trusted,
        )
        .join(
            feedback,
            (feedback.c.tenant == interactions.c.tenant) & (feedback.c.interaction_id == interactions.c.interaction_id),
        )
        .join(first, first.c.unit == interactions.c.unit)
        .where(
            interactions.c.tenant == tenant,
            interactions.c.release_seq == release_seq,
            feedback.c.score.is_not(None),
        )
        .order_by(feedback.c.seq)
    )
    ratings: dict[str, dict[tuple[str, str, str], Row[Any]]] = {}
    with database.connect() as connection:
        for row in connection.execute(query):
            if window_s is None or (row.received_at - row.first_seen).total_seconds() <= window_s:
                ratings.setdefault(row.unit, {})[(row.interaction_id, row.actor, row.kind)] = row
    return [_rated(unit, list(last.values())) for unit, last in sorted(ratings.items())]


def assigned_units(database: Engine, tenant: str, release_seq: int) -> dict[str, int]:
    """Count the units that each arm of a release has answered."""
    query = (
        select(interactions.c.arm, func.count(interactions.c.unit.distinct()))
        .where(interactions.c.tenant == tenant, interactions.c.release_seq == release_seq)
        .group_by(interactions.c.arm)
    )
    with database.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def _rated(unit: str, ratings: list[Row[Any]]) -> RatedUnit:
    return RatedUnit(
        unit=unit,
        arm=ratings[0].arm,
        probability=ratings[0].probability,
        score=sum(rating.score for rating in ratings) / len(ratings),
        first_seen=ratings[0].first_seen,
        rated_at=max(rating.received_at for rating in ratings),
        trusted=all(rating.trusted for rating in ratings),
        ratings=len(ratings),
    )
