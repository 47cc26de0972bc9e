"""Compare any two versions: paired differences by unit, with intervals and p-values.

Two versions of one scorecard answered the same items. Two of different nights are paired on the items that both nights
asked, since every value is stored by item: `joint_scorecard` makes one scorecard of the two.
"""

from __future__ import annotations

import numpy as np

from evaluation.gate.paired import paired_differences
from evaluation.scorecard import Direction, MetricInfo, Scorecard, Table
from evaluation.significance import bca_interval, seed_of, sign_flip_p_values
from evaluation.version_card import VersionCard
from infra.errors import NotFound
from infra.settings import Config

_FLIPS = 20_000


class Comparison(Config):
    """One metric of two versions, a minus b, in the metric's own direction."""

    metric: str
    """Registry name."""
    direction: Direction
    """Whether more or less is better."""
    a: float
    """Mean of the first over the units compared."""
    b: float
    """Mean of the second."""
    difference: float
    """a - b."""
    low: float
    """Lower 95% confidence limit of the difference (BCa bootstrap)."""
    high: float
    """Upper 95% confidence limit."""
    units: int
    """Units compared."""
    p_better: float | None
    """One-sided p-value that the first is better (sign flips); None for neutral metrics. Not corrected for looking at
    several metrics."""
    p_worse: float | None
    """One-sided p-value that the first is worse."""


def version_called(scorecard: Scorecard, name: str) -> VersionCard | None:
    """Find the version meant by a name, a beginning of it, a label, or a role that one version has alone."""
    for matches in (
        [card for card in scorecard.versions if card.version == name],
        [card for card in scorecard.versions if name in (card.label, card.role)],
        [card for card in scorecard.versions if len(name) >= 4 and card.version.startswith(name)],
    ):
        if len(matches) == 1:
            return matches[0]
    return None


def compare_versions(scorecard: Scorecard, a: str, b: str) -> list[Comparison]:
    """Compare two versions on every metric that both have values for.

    Raises:
        NotFound: one of them was not measured on this scorecard.
    """
    for name in (a, b):
        if scorecard.card(name) is None:
            known = ", ".join(card.version for card in scorecard.versions)
            raise NotFound(f"{name} is not on the scorecard of {scorecard.night_id or 'this evaluation'} ({known})")
    return [
        comparison
        for info in scorecard.metrics
        if {a, b} <= scorecard.table(info).scores[info.name].keys()
        and (comparison := _compare(scorecard, info, a, b)) is not None
    ]


def _compare(scorecard: Scorecard, info: MetricInfo, a: str, b: str) -> Comparison | None:
    """The comparison on one metric; None where it applies to no item that both have a value for."""
    paired = paired_differences(scorecard, info, a, b)
    if not paired.units:
        return None
    interval = bca_interval(paired.in_own_direction(info), seed=seed_of(f"{info.name}/{a}/{b}"))
    better: float | None = None
    worse: float | None = None
    if info.direction != "neutral":
        columns = np.column_stack([paired.differences, -paired.differences])
        better, worse = map(float, sign_flip_p_values(columns, flips=_FLIPS, seed=seed_of(scorecard.items_digest)))
    return Comparison(
        metric=info.name,
        direction=info.direction,
        a=_mean(scorecard, info, a, b),
        b=_mean(scorecard, info, b, a),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        units=len(paired.units),
        p_better=better,
        p_worse=worse,
    )


def joint_scorecard(first: Scorecard, a: str, second: Scorecard, b: str) -> Scorecard | None:
    """Join one scorecard of two versions that no evaluation measured together, on the items that both nights asked.

    Win-rates are left out: each night's are against its own champion. None where the two share no item, or were not
    measured with the same numerics on the same hardware, so that a difference could be the instrument's.
    """
    cards = first.card(a), second.card(b)
    if first.hardware != second.hardware or None in cards:
        return None
    gate, regression = _common(first.gate, a, second.gate, b), _common(first.regression, a, second.regression, b)
    if not gate.items and not regression.items:
        return None
    shared = {*gate.scores, *regression.scores}
    return first.model_copy(
        update={
            "night_id": f"{first.night_id} and {second.night_id}",
            "versions": cards,
            "metrics": tuple(m for m in first.metrics if m.name in shared and m == second.metric(m.name)),
            "gate": gate,
            "regression": regression,
            "estimates": (),
            "changes": (),
            "noise": {},
            "judges": (),
        }
    )


def _common(first: Table, a: str, second: Table, b: str) -> Table:
    """The items in both tables with the first's values of `a` and the second's of `b`, win-rates left out."""
    places = {(item.item_id, item.group): place for place, item in enumerate(second.items)}
    pairs = [
        (here, places[item.item_id, item.group])
        for here, item in enumerate(first.items)
        if (item.item_id, item.group) in places
    ]
    scores = {
        metric: {
            a: tuple(by_version[a][here] for here, _ in pairs),
            b: tuple(second.scores[metric][b][there] for _, there in pairs),
        }
        for metric, by_version in first.scores.items()
        if a in by_version and b in second.scores.get(metric, {}) and not metric.startswith("win_rate")
    }
    return Table(items=tuple(first.items[here] for here, _ in pairs), scores=scores)


def _mean(scorecard: Scorecard, info: MetricInfo, version: str, other: str) -> float:
    """Mean over units of the items on which both have a value."""
    table = scorecard.table(info)
    ours, theirs = table.scores[info.name][version], table.scores[info.name][other]
    groups: dict[str, list[float]] = {}
    for item, value, counterpart in zip(table.items, ours, theirs, strict=True):
        if value is not None and counterpart is not None:
            groups.setdefault(item.group, []).append(value)
    return float(np.mean([np.mean(values) for values in groups.values()]))
