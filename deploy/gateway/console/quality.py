"""Show per version how often it was right on the gate's items, and how many of its users were satisfied."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, func, select

from deploy.gateway.console.nights import scorecard_of
from deploy.ledger.ledger import current
from deploy.nights.record import read_records
from deploy.nights.steps import VERDICT
from evaluation.proportions import wilson_interval
from feedback.store.store import feedback, interactions
from infra.database.connect import now
from infra.settings import Config, Places

DAYS = 90
"""How far back thumbs are counted."""


class Measurement(Config):
    """A version's latest estimate of the metric that the night was decided on, with the 95% BCa interval."""

    metric: str
    direction: str
    binary: bool
    mean: float
    low: float
    high: float
    units: int
    night_id: str
    label: str


class Thumbs(Config):
    """How many of the users who rated a version were satisfied, with the 95% Wilson interval."""

    satisfied: int
    rated: int
    mean: float
    low: float
    high: float


class VersionQuality(Config):
    """One version that was measured or rated."""

    version: str
    role: str
    """champion, canary, previous, base, barred, or nothing."""
    measured: Measurement | None
    thumbs: Thumbs | None


class Quality(Config):
    """All of them, newest measurement first."""

    days: int
    """How far back thumbs are counted."""
    versions: tuple[VersionQuality, ...]


def quality_of_versions(database: Engine, home: Path, tenant: str) -> Quality:
    """List the versions that were measured or rated, newest measurement first."""
    standing = current(database, tenant)
    measured = measurements(home, tenant)
    thumbs = satisfied(database, tenant)
    roles = {standing.base: "base", standing.previous: "previous", standing.canary: "canary"}
    roles[standing.champion] = "champion"
    return Quality(
        days=DAYS,
        versions=tuple(
            VersionQuality(
                version=name,
                role="barred" if name in standing.barred else roles.get(name, ""),
                measured=measured.get(name),
                thumbs=thumbs.get(name),
            )
            for name in dict.fromkeys([*measured, *thumbs])
        ),
    )


def measurements(home: Path, tenant: str) -> Mapping[str, Measurement]:
    """Return each version's latest measurement in the last 30 nights."""
    latest: dict[str, Measurement] = {}
    for night in read_records(Places(home=home).nights_dir, tenant)[:30]:
        scorecard, verdict = scorecard_of(home, night.night_id), night.result(VERDICT)
        if scorecard is None:
            continue
        names = [metric.name for metric in scorecard.metrics]
        primary = verdict.primary if verdict else next((n for n in ("exact_match", "loss") if n in names), None)
        info = scorecard.metric(primary) if primary else None
        for estimate in scorecard.estimates:
            if info is None or estimate.metric != primary or estimate.part != "all" or estimate.version in latest:
                continue
            card = scorecard.card(estimate.version)
            latest[estimate.version] = Measurement(
                metric=estimate.metric,
                direction=info.direction,
                binary=info.binary,
                mean=estimate.mean,
                low=estimate.low,
                high=estimate.high,
                units=estimate.units,
                night_id=night.night_id,
                label=card.label if card else "",
            )
    return latest


def satisfied(database: Engine, tenant: str) -> Mapping[str, Thumbs]:
    """Return by version how many rating users were satisfied (mean of what they said at least one half).

    The unit is the user, as everywhere: one person's hundred thumbs count once. Pinned and arena answers are left out,
    for they were asked for by name.
    """
    per_user = (
        select(
            interactions.c.version,
            func.coalesce(interactions.c.unit, interactions.c.interaction_id).label("unit"),
            func.avg(feedback.c.score).label("score"),
        )
        .join(
            feedback,
            (feedback.c.tenant == interactions.c.tenant) & (feedback.c.interaction_id == interactions.c.interaction_id),
        )
        .where(
            interactions.c.tenant == tenant,
            interactions.c.created_at >= now() - timedelta(days=DAYS),
            interactions.c.arm.not_in(("pinned", "arena")),
            feedback.c.score.is_not(None),
        )
        .group_by(interactions.c.version, "unit")
    )
    counts: dict[str, list[int]] = {}
    with database.connect() as connection:
        for version, _, score in connection.execute(per_user):
            entry = counts.setdefault(version, [0, 0])
            entry[0] += int(score >= 0.5)
            entry[1] += 1
    return {version: _thumbs(good, rated) for version, (good, rated) in counts.items()}


def _thumbs(good: int, rated: int) -> Thumbs:
    low, high = wilson_interval(good, rated)
    return Thumbs(satisfied=good, rated=rated, mean=good / rated, low=low, high=high)
