"""Store noise floors over nights, per metric and hardware, and pool them.

Two things move a metric though nothing was learned: the same weights asked again, and the same recipe with another
seed. One night measures little of either: the pooled noise floor is the root mean square over earlier nights.
"""

from __future__ import annotations

import math
import platform
from pathlib import Path

from sqlalchemy import Column, Engine, Float, Integer, String, Table, UniqueConstraint, func, insert, select

from evaluation.scorecard import Scorecard
from infra.database.connect import UtcDateTime, begin_write, metadata, now

noise_floors = Table(
    "noise_floors",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("metric", String(200), nullable=False),
    Column("hardware", String(300), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("value", Float, nullable=False),
    Column("items", Integer, nullable=False),
    Column("night_id", String(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("metric", "hardware", "kind", "night_id"),
)

SAME_WEIGHTS, SEED_TO_SEED = "same_weights", "seed_to_seed"
NIGHTS = 30
"""Nights that are pooled; older ones may have run another version of the libraries."""


def hardware_name(threads: int, dtype: str) -> str:
    """Name what noise depends on: GPU or else processor, system, threads, numerics."""
    from training.hardware import accelerators

    gpus = accelerators().gpus
    if gpus:
        return f"{gpus[0].name}, {platform.system()}, {threads} threads, {dtype}"[:300]
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {platform.system()}, {threads} threads, {dtype}"[:300]


def record_floors(database: Engine, scorecard: Scorecard) -> int:
    """Record what a night measured of both kinds; returns how many were new. The same night again changes nothing."""
    rows = [
        {"metric": metric, "kind": kind, "value": value, "items": items}
        for metric, floor in scorecard.noise.items()
        for kind, value, items in (
            (SAME_WEIGHTS, floor.same_weights, floor.same_weights_items),
            (SEED_TO_SEED, floor.seed_to_seed, len(scorecard.gate.items)),
        )
        if value is not None and items
    ]
    common = {"hardware": scorecard.hardware, "night_id": scorecard.night_id, "at": now()}
    with begin_write(database) as connection:
        recorded = select(noise_floors.c.metric, noise_floors.c.kind).where(
            noise_floors.c.hardware == scorecard.hardware, noise_floors.c.night_id == scorecard.night_id
        )
        known_kinds = {(row.metric, row.kind) for row in connection.execute(recorded)}
        fresh = [row | common for row in rows if (row["metric"], row["kind"]) not in known_kinds]
        if fresh:
            connection.execute(insert(noise_floors), fresh)
    return len(fresh)


def known_floors(database: Engine, hardware: str, *, night_id: str, nights: int = NIGHTS) -> dict[str, float]:
    """Pool the noise floors of the latest nights on this hardware, `night_id` itself left out; metric -> floor.

    For each kind the root mean square over nights, weighted by items; the larger kind counts. If a night's value is a
    normal mean of n items around 0, with variance s^2 / n, then the mean of n * value^2 is the maximum-likelihood
    estimate of s^2, and the weighted mean square is that over the nights' average n.
    """
    table = noise_floors
    mine = (table.c.hardware == hardware) & (table.c.night_id != night_id)
    with database.connect() as connection:
        latest = select(table.c.night_id).where(mine).group_by(table.c.night_id).order_by(func.max(table.c.seq).desc())
        kept = list(connection.scalars(latest.limit(nights)))
        rows = connection.execute(select(table).where(mine, table.c.night_id.in_(kept)).order_by(table.c.seq)).all()
    pooled: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for row in rows:
        pooled.setdefault(row.metric, {}).setdefault(row.kind, []).append((row.value, row.items))
    return {
        metric: max(_root_mean_square(values) for values in kinds.values()) for metric, kinds in sorted(pooled.items())
    }


def seed_spread_due(database: Engine, hardware: str, *, every: int, night_id: str) -> bool:
    """Decide whether to train a seed replicate: no spread between seeds was measured here for `every` nights."""
    if every == 0:
        return False
    table = noise_floors
    mine = (table.c.hardware == hardware) & (table.c.night_id != night_id)
    with database.connect() as connection:
        last = connection.scalar(select(func.max(table.c.seq)).where(mine, table.c.kind == SEED_TO_SEED))
        if last is None:
            return True
        since = connection.scalar(select(func.count(table.c.night_id.distinct())).where(mine, table.c.seq > last))
    return (since or 0) >= every


def _root_mean_square(values: list[tuple[float, int]]) -> float:
    items = sum(count for _, count in values)
    return math.sqrt(math.fsum(value * value * count for value, count in values) / items)
