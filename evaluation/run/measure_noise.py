"""What one night sees of its own noise: the champion measured twice, and a recipe trained with two seeds.

Every metric has its floor, win-rates and base abilities too: the champion's second answers are judged against its
first, and some of the pack's documents are scored once more. `evaluation/run/noise_floors.py` keeps this from night to
night.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.abilities.bundled_pack import FIELDS
from evaluation.answers.generate import answered
from evaluation.job.config import EvaluationJob
from evaluation.job.journal import Rows
from evaluation.judges.win_rates import AGAIN, OPPONENTS, win_rate_name
from evaluation.metrics import metric as find_metric
from evaluation.scorecard import MetricInfo, NoiseFloor, Table

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

ByVersion = Mapping[str, tuple[float | None, ...]]


def night_noise(
    job: EvaluationJob,
    items: Sequence[GateItem],
    rows: Rows,
    scores: Mapping[str, ByVersion],
    regression: Table,
    infos: Sequence[MetricInfo],
) -> dict[str, NoiseFloor]:
    """Metric -> what this night saw of its noise, and what earlier nights did.

    Args:
        scores: values of the gate's metrics, win-rates among them.
        regression: those of base abilities.
    """
    judged = _judged_again(job, rows)
    floors: dict[str, NoiseFloor] = {}
    for info in infos:
        if info.table == "regression":
            values, differences = regression.scores[info.name], _abilities_again(job, rows, info)
        elif info.name in judged:
            values, differences = scores[info.name], judged[info.name]
        else:
            values = scores[info.name]
            differences = _answers_again(job, items, rows, info.name, values)
        same = abs(math.fsum(differences)) / len(differences) if differences else None
        spread, earlier = _seed_spread(job, values), job.known_noise.get(info.name)
        if not (same is None and spread is None and earlier is None):
            floors[info.name] = NoiseFloor(
                same_weights=same, same_weights_items=len(differences), seed_to_seed=spread, earlier=earlier
            )
    return floors


def _answers_again(
    job: EvaluationJob,
    items: Sequence[GateItem],
    rows: Rows,
    metric: str,
    values: ByVersion,
) -> list[float]:
    """What a metric says of the champion's second answers, less what it said of the first."""
    again = {row["key"][-1]: row for row in rows.starting("again", job.champion)}
    differences = []
    for item, first in zip(items, values.get(job.champion, ()), strict=False):
        if first is not None and item.item_id in again:
            second = find_metric(metric).score(answered(item, again[item.item_id]))
            if second is not None:  # the safety classifier looks at first answers only
                differences.append(second - first)
    return differences


def _abilities_again(job: EvaluationJob, rows: Rows, info: MetricInfo) -> list[float]:
    first = {row["item_id"]: row for row in rows.starting("regression", job.champion)}
    again = rows.starting("regression again", job.champion)
    field = FIELDS[info.name]
    pairs = [(row[field], first[row["item_id"]][field]) for row in again if row["item_id"] in first]
    return [second - one for second, one in pairs if second is not None and one is not None]


def _judged_again(job: EvaluationJob, rows: Rows) -> dict[str, list[float]]:
    """Win-rate -> how far from a tie each of the champion's second answers is held to be from its first.

    The plain preference counts for the win-rate at equal lengths too: what length explains is fitted over all items,
    and a handful of second answers says nothing about it.
    """
    found: dict[str, list[float]] = {}
    for index, judge in enumerate(job.config.judges):
        values = [row["value"] - 0.5 for row in rows.starting("judged", str(index), AGAIN, job.champion)]
        for against in OPPONENTS:
            name = win_rate_name(index, judge.name, against)
            found |= {name: values, f"{name}_raw": values}
    return found


def _seed_spread(job: EvaluationJob, values: ByVersion) -> float | None:
    """Largest difference of means between versions of one recipe that differ by seed alone; None without such."""
    means: dict[str, dict[int, float]] = {}
    for candidate in job.versions:
        present = [value for value in values.get(candidate.version, ()) if value is not None]
        if candidate.seed is not None and present and candidate.recipe:
            means.setdefault(candidate.recipe, {})[candidate.seed] = math.fsum(present) / len(present)
    spreads = [max(found.values()) - min(found.values()) for found in means.values() if len(found) > 1]
    return max(spreads) if spreads else None
