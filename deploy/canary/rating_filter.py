"""Exclude abusive ratings from a canary: decided live, blind to the arm, from times and actors alone.

Under the null of the rollback test, arms are a coin's throw given everything else; so whoever is left out by a rule
that never sees the arm leaves the test's promise intact. For the same reason the rules look back only: what is decided
of a user never changes with what comes later.

    another's   the words on a user's answers are by somebody who had rated another user's before (one person, one say)
    flood       more users than `canary.flood_units` were first rated within `canary.flood_seconds` up to this one

Trusted raters are let through, and so are words without a named person, which a key's holder sends for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Engine, select

from deploy.canary.policy import CanaryPolicy
from feedback.store.store import feedback, interactions

Reason = Literal["another's", "flood"]


@dataclass(frozen=True)
class Rating:
    """One rating, without the arm it fell on."""

    unit: str
    actor: str
    received_at: datetime
    trusted: bool


def exclude_abuse(ratings: Iterable[Rating], policy: CanaryPolicy) -> dict[str, Reason]:
    """Find units to leave out of the comparison, and why.

    Args:
        words: every rating under a release, in the order in which they were stored.
    """
    out: dict[str, Reason] = {}
    first_of: dict[str, str] = {}  # person -> the first unit they rated
    seen: set[str] = set()
    recent: deque[datetime] = deque()
    for rating in ratings:
        named = not rating.actor.startswith("key-") and not rating.trusted
        if named and first_of.setdefault(rating.actor, rating.unit) != rating.unit and rating.unit not in seen:
            out[rating.unit] = "another's"
        if rating.unit in seen:
            continue
        seen.add(rating.unit)
        while recent and (rating.received_at - recent[0]).total_seconds() > policy.flood_seconds:
            recent.popleft()
        recent.append(rating.received_at)
        if len(recent) > policy.flood_units:
            out.setdefault(rating.unit, "flood")
    return out


def ratings_of(database: Engine, tenant: str, release_seqs: Iterable[int]) -> list[Rating]:
    """Load the ratings on answers given under these releases, in the order in which they were stored, without arms."""
    query = (
        select(interactions.c.unit, feedback.c.actor, feedback.c.received_at, feedback.c.trusted)
        .join(
            feedback,
            (feedback.c.tenant == interactions.c.tenant) & (feedback.c.interaction_id == interactions.c.interaction_id),
        )
        .where(
            interactions.c.tenant == tenant,
            interactions.c.release_seq.in_(list(release_seqs)),
            feedback.c.score.is_not(None),
        )
        .order_by(feedback.c.seq)
    )
    with database.connect() as connection:
        return [Rating(row.unit, row.actor, row.received_at, bool(row.trusted)) for row in connection.execute(query)]


def counted(reasons: Mapping[str, Reason]) -> dict[str, int]:
    """Count how many units each rule left out."""
    return {reason: sum(found == reason for found in reasons.values()) for reason in sorted(set(reasons.values()))}
