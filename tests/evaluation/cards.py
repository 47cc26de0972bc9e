"""Small scorecards made by hand, for tests of the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.gate.policy import GatePolicy
from evaluation.scorecard import JudgeReport, MetricInfo, NoiseFloor, Scorecard, ScoredItem, Table
from evaluation.version_card import VersionCard

Values = Sequence[float | None]


def version(name: str, role: str = "challenger", **changes: object) -> VersionCard:
    """A version that was measured without a fault."""
    facts = {
        "version": name,
        "label": name,
        "role": role,
        "kind": "adapter",
        "digest": f"digest-{name}",
        "items_digest": "items",
        "parity": "passed",
    }
    return VersionCard.model_validate(facts | changes)


def scorecard(
    primary: Mapping[str, Values],
    *,
    groups: Sequence[str] | None = None,
    uses: Sequence[int] | None = None,
    slices: Sequence[Mapping[str, str]] | None = None,
    guard: Mapping[str, Values] | None = None,
    guard_binary: bool = True,
    regression: Mapping[str, Values] | None = None,
    versions: Sequence[VersionCard] | None = None,
    failed: Sequence[str] = (),
    judges: Sequence[JudgeReport] = (),
    noise: Mapping[str, NoiseFloor] | None = None,
    contaminated: int | None = 0,
) -> Scorecard:
    """A scorecard of `primary` (yes/no, more is better) with "champion" among its versions."""
    count = len(next(iter(primary.values())))
    groups = groups or [f"g{i:04d}" for i in range(count)]
    items = tuple(
        ScoredItem(
            item_id=f"i{i:04d}",
            group=groups[i],
            uses=uses[i] if uses else 0,
            slices=slices[i] if slices else {},
        )
        for i in range(count)
    )
    scores = {"primary": {name: tuple(values) for name, values in primary.items()}}
    metrics = [MetricInfo(name="primary", direction="higher", binary=True)]
    if guard is not None:
        scores["guard"] = {name: tuple(values) for name, values in guard.items()}
        metrics.append(MetricInfo(name="guard", direction="higher", binary=guard_binary))
    table = Table()
    if regression is not None:
        length = len(next(iter(regression.values())))
        table = Table(
            items=tuple(ScoredItem(item_id=f"r{i:04d}", group=f"r{i:04d}") for i in range(length)),
            scores={"regression_accuracy": {name: tuple(values) for name, values in regression.items()}},
        )
        metrics.append(MetricInfo(name="regression_accuracy", direction="higher", binary=True, table="regression"))
    named = versions or [
        version(name, "champion" if name == "champion" else "base" if name == "base" else "challenger")
        for name in primary
    ]
    return Scorecard(
        champion="champion",
        base="base" if "base" in primary else "champion",
        items_digest="items",
        versions=tuple(named),
        failed_challengers=tuple(failed),
        metrics=tuple(metrics),
        gate=Table(items=items, scores=scores),
        regression=table,
        judges=tuple(judges),
        noise=noise or {},
        contaminated_items=contaminated,
    )


def policy(**changes: object) -> GatePolicy:
    """A policy for single nights at 5%, without guards unless asked for."""
    facts: dict[str, object] = {
        "primary": "primary",
        "guards": (),
        "alpha_night": 0.05,
        "min_units": 20,
        "min_fresh_units": 5,
        "forgetting": None,
        "min_slice_units": 10,
    }
    return GatePolicy.model_validate(facts | changes)


def share(count: int, right: int) -> list[float]:
    """`count` answers of which the first `right` are right."""
    return [1.0] * right + [0.0] * (count - right)
