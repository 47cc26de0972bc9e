"""Measure one night's noise floors: the champion measured twice, and a recipe trained with two seeds.

Every metric has its floor, win-rates and base abilities too: the champion's second answers are judged against its
first, and some of the pack's documents are scored once more. `evaluation/run/noise_floors.py` keeps this from night to
night.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.answers.entries import SECOND_ANSWERS, metric_input
from evaluation.job.config import EvaluationJob
from evaluation.job.journal import Journal
from evaluation.metrics import find_metric
from evaluation.run.measure_versions import REGRESSION, SECOND_REGRESSION
from evaluation.run.win_rates import JUDGEMENTS, OPPONENTS, SECOND, win_rate_name
from evaluation.scorecard import MetricInfo, NoiseFloor, Table

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

ByVersion = Mapping[str, tuple[float | None, ...]]


def measure_noise_floors(
    job: EvaluationJob,
    items: Sequence[GateItem],
    journal: Journal,
    scores: Mapping[str, ByVersion],
    regression: Table,
    infos: Sequence[MetricInfo],
) -> dict[str, NoiseFloor]:
    """Measure the noise of each metric, beside that of earlier nights; metric -> floors.

    Args:
        scores: values of the gate's metrics, win-rates among them.
        regression: those of base abilities.
    """
    judged = _second_judgements(job, journal)
    floors: dict[str, NoiseFloor] = {}
    for info in infos:
        if info.table == "regression":
            values, differences = regression.scores[info.name], _second_regression(job, journal, info)
        elif info.name in judged:
            values, differences = scores[info.name], judged[info.name]
        else:
            values = scores[info.name]
            differences = _second_answers(job, items, journal, info.name, values)
        same = abs(math.fsum(differences)) / len(differences) if differences else None
        spread, earlier = _seed_spread(job, values), job.known_noise.get(info.name)
        if not (same is None and spread is None and earlier is None):
            floors[info.name] = NoiseFloor(
                same_weights=same, same_weights_items=len(differences), seed_to_seed=spread, earlier=earlier
            )
    return floors


def _second_answers(
    job: EvaluationJob, items: Sequence[GateItem], journal: Journal, metric: str, values: ByVersion
) -> list[float]:
    """Values of a metric for the champion's second answers, less those for the first."""
    again = journal.by_item(SECOND_ANSWERS, job.champion)
    differences = []
    for item, first in zip(items, values.get(job.champion, ()), strict=False):
        if first is not None and item.item_id in again:
            second = find_metric(metric).score(metric_input(item, again[item.item_id]))
            if second is not None:  # the safety classifier looks at first answers only
                differences.append(second - first)
    return differences


def _second_regression(job: EvaluationJob, journal: Journal, info: MetricInfo) -> list[float]:
    first = journal.by_item(REGRESSION, job.champion)
    again = journal.by_item(SECOND_REGRESSION, job.champion)
    pairs = [(again[i].value(info.name), first[i].value(info.name)) for i in again if i in first]
    return [b - a for b, a in pairs if b is not None and a is not None]


def _second_judgements(job: EvaluationJob, journal: Journal) -> dict[str, list[float]]:
    """Win-rate -> how far from a tie each of the champion's second answers is judged to be from its first.

    The plain preference counts for the win-rate at equal lengths too: what length explains is fitted over all items,
    and a handful of second answers says nothing about it.
    """
    distances: dict[str, list[float]] = {}
    for index, judge in enumerate(job.config.judges):
        entries = journal.entries(JUDGEMENTS, str(index), SECOND, job.champion)
        values = [entry.value - 0.5 for entry in entries.values()]
        for against in OPPONENTS:
            name = win_rate_name(index, judge.name, against)
            distances |= {name: values, f"{name}_raw": values}
    return distances


def _seed_spread(job: EvaluationJob, values: ByVersion) -> float | None:
    """Largest difference of means between versions of one recipe that differ by seed alone; None without such."""
    means: dict[str, dict[int, float]] = {}
    for candidate in job.versions:
        present = [value for value in values.get(candidate.version, ()) if value is not None]
        if candidate.seed is not None and present and candidate.recipe:
            means.setdefault(candidate.recipe, {})[candidate.seed] = math.fsum(present) / len(present)
    spreads = [max(seeds.values()) - min(seeds.values()) for seeds in means.values() if len(seeds) > 1]
    return max(spreads) if spreads else None
