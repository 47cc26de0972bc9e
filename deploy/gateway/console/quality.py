"""Per version: how often it was right on the gate's items, and how many of its users were satisfied."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select

from deploy.gateway.console.nights import night_files, scorecard_of
from deploy.ledger.ledger import current
from feedback.store.store import feedback, interactions
from infra.database.connect import now

DAYS = 90
"""How far back thumbs are counted."""


def versions(database: Engine, home: Path, tenant: str) -> dict[str, Any]:
    """One entry per version that was measured or rated, newest measurement first."""
    state = current(database, tenant)
    measured = measurements(home, tenant)
    thumbs = satisfied(database, tenant)
    roles = {state.base: "base", state.previous: "previous", state.canary: "canary"}
    roles[state.champion] = "champion"
    names = [*dict.fromkeys([*measured, *thumbs])]
    return {
        "days": DAYS,
        "versions": [
            {
                "version": name,
                "role": "barred" if name in state.barred else roles.get(name, ""),
                "measured": measured.get(name),
                "thumbs": thumbs.get(name),
            }
            for name in names
        ],
    }


def measurements(home: Path, tenant: str) -> dict[str, dict[str, Any]]:
    """Version -> its latest estimate of the metric that the night was decided on, with the 95% BCa interval."""
    found: dict[str, dict[str, Any]] = {}
    for night in night_files(home, tenant)[:30]:
        scorecard, verdict = scorecard_of(home, night["night_id"]), night["steps"].get("verdict")
        if scorecard is None:
            continue
        names = [metric.name for metric in scorecard.metrics]
        primary = verdict["primary"] if verdict else next((n for n in ("exact_match", "loss") if n in names), None)
        info = scorecard.metric(primary) if primary else None
        for estimate in scorecard.estimates:
            if info is None or estimate.metric != primary or estimate.part != "all" or estimate.version in found:
                continue
            card = scorecard.card(estimate.version)
            found[estimate.version] = {
                "metric": primary,
                "direction": info.direction,
                "binary": info.binary,
                "mean": estimate.mean,
                "low": estimate.low,
                "high": estimate.high,
                "units": estimate.units,
                "night_id": night["night_id"],
                "label": card.label if card else "",
            }
    return found


def satisfied(database: Engine, tenant: str) -> dict[str, dict[str, Any]]:
    """Version -> share of rating users who were satisfied (mean of what they said at least one half).

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
    return {version: _share(good, rated) for version, (good, rated) in counts.items()}


def _share(good: int, rated: int) -> dict[str, Any]:
    low, high = wilson(good, rated)
    return {"satisfied": good, "rated": rated, "mean": good / rated, "low": low, "high": high}


def wilson(good: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927, JASA 22:209, equation 2)."""
    if total == 0:
        return 0.0, 1.0
    share, spread = good / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
