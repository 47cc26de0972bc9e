"""Summarise a scorecard's per-item values for reading: means and paired changes with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from evaluation.gate.paired import paired_differences
from evaluation.scorecard import Change, Estimate, MetricInfo, Scorecard, ScoredItem
from evaluation.significance import bca_interval, seed_of

Part = Literal["all", "rolling", "frozen", "fresh"]
_PARTS: tuple[Part, ...] = ("all", "rolling", "frozen", "fresh")
_DRAWS = 1000


def summarised(scorecard: Scorecard) -> Scorecard:
    """Add estimates and changes to a scorecard."""
    return scorecard.model_copy(update={"estimates": _estimates(scorecard), "changes": _changes(scorecard)})


def _estimates(scorecard: Scorecard) -> tuple[Estimate, ...]:
    estimates = []
    for info in scorecard.metrics:
        for version in sorted(scorecard.table(info).scores[info.name]):
            for part in _PARTS if info.table == "gate" else _PARTS[:1]:
                estimate = _estimate(scorecard, info, version, part)
                if estimate is not None:
                    estimates.append(estimate)
    return tuple(estimates)


def _estimate(scorecard: Scorecard, info: MetricInfo, version: str, part: Part) -> Estimate | None:
    table = scorecard.table(info)
    groups: dict[str, list[float]] = {}
    for item, value in zip(table.items, table.scores[info.name][version], strict=True):
        if value is not None and _in_part(item, part):
            groups.setdefault(item.group, []).append(value)
    if not groups:
        return None
    means = np.array([math.fsum(groups[g]) / len(groups[g]) for g in sorted(groups)])
    interval = bca_interval(means, draws=_DRAWS, seed=seed_of(f"{info.name}/{version}/{part}"))
    return Estimate(
        metric=info.name,
        version=version,
        part=part,
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        items=sum(len(values) for values in groups.values()),
        units=len(groups),
    )


def _in_part(item: ScoredItem, part: Part) -> bool:
    return part == "all" or (item.uses == 0 if part == "fresh" else item.part == part)


def _changes(scorecard: Scorecard) -> tuple[Change, ...]:
    changes: list[Change] = []
    for info in scorecard.metrics:
        table = scorecard.table(info)
        scores = table.scores[info.name]
        slices = sorted({(d, v) for item in table.items for d, v in item.slices.items()})
        counts: dict[str, int] = {}
        for dimension, _ in slices:
            counts[dimension] = counts.get(dimension, 0) + 1
        slices = [pair for pair in slices if counts[pair[0]] > 1]
        for version in sorted(scores):
            own = scorecard.card(version)
            parent = {own.sft_parent} if own is not None and own.sft_parent is not None else set()
            for since in sorted(({scorecard.champion, scorecard.base} | parent) - {version}):
                if since not in scores:
                    continue
                changes += _change(scorecard, info, version, since, "all", lambda item: True)
                if since == scorecard.champion:
                    for dimension, value in slices:
                        keep = _slice_filter(dimension, value)
                        changes += _change(scorecard, info, version, since, f"{dimension}={value}", keep)
    return tuple(changes)


def _slice_filter(dimension: str, value: str) -> Callable[[ScoredItem], bool]:
    return lambda item: item.slices.get(dimension) == value


def _change(
    scorecard: Scorecard, info: MetricInfo, version: str, since: str, name: str, keep: Callable[[ScoredItem], bool]
) -> list[Change]:
    paired = paired_differences(scorecard, info, version, since, keep)
    if not paired.units:
        return []
    interval = bca_interval(
        paired.in_own_direction(info), draws=_DRAWS, seed=seed_of(f"{info.name}/{version}/{since}/{name}")
    )
    return [
        Change(
            metric=info.name,
            version=version,
            since=since,
            slice=name,
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            units=len(paired.units),
        )
    ]
