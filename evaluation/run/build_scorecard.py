"""From durable rows to the scorecard: metrics, judges' results, intervals, noise floors. No model is needed here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from evaluation.abilities.bundled_pack import ACCURACY, FIELDS, LOSS, PROBABILITY
from evaluation.answers.generate import answered
from evaluation.gate.likeness import barred_likeness
from evaluation.gate.paired import compare
from evaluation.job.config import Candidate, EvaluationJob
from evaluation.job.items import Contamination
from evaluation.job.journal import Rows
from evaluation.judges.length_control import length_controlled
from evaluation.judges.win_rates import OPPONENTS, win_rate_name
from evaluation.metrics import metric as find_metric
from evaluation.metrics.metric import Metric
from evaluation.run.measure_noise import night_noise
from evaluation.run.noise_floors import hardware_name
from evaluation.run.questions import Questions
from evaluation.scorecard import (
    Change,
    Estimate,
    JudgeReport,
    MetricInfo,
    Role,
    Scorecard,
    ScoredItem,
    Table,
    VersionCard,
)
from evaluation.significance import bca_interval, seed_of

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

Values = dict[str, dict[str, tuple[float | None, ...]]]
_DRAWS = 1000
_PARTS: tuple[Literal["all", "rolling", "frozen", "fresh"], ...] = ("all", "rolling", "frozen", "fresh")


_REGRESSION = tuple(
    MetricInfo(name=name, direction=direction, binary=binary, table="regression", description=text)
    for name, direction, binary, text in (
        (ACCURACY, "higher", True, "Share of base-ability questions answered right (by likelihood, as lm-eval does)."),
        (PROBABILITY, "higher", False, "Probability of the right choice among the choices of base-ability questions."),
        (LOSS, "lower", False, "Loss on held-out passages of plain text, in nats per token."),
    )
)


def build_scorecard(
    job: EvaluationJob,
    questions: Questions,
    rows: Rows,
    errors: dict[str, str],
    judges: Sequence[JudgeReport],
    found: Contamination | None,
) -> Scorecard:
    """The scorecard of all finished rows.

    Args:
        errors: version -> why it could not be scored.
        found: what training data hold of the items.
    """
    items, digest = questions.items, questions.digest
    names = sorted(candidate.version for candidate in job.versions if candidate.version not in errors)
    scores, infos = _gate_scores(job, items, rows, names)
    _add_judged(job, items, rows, names, scores, infos, judges)
    regression = _regression(rows, names, infos)
    card = Scorecard(
        night_id=job.night_id,
        champion=job.champion,
        base=job.base.version,
        items_digest=digest,
        versions=tuple(sorted((_card(job, c, items, digest, rows, errors) for c in job.versions), key=_version)),
        failed_challengers=tuple(sorted(job.failed_challengers)),
        metrics=tuple(sorted(infos, key=lambda info: info.name)),
        gate=Table(items=tuple(_scored(item) for item in items), scores=scores),
        regression=regression,
        noise=night_noise(job, items, rows, scores, regression, infos),
        judges=tuple(judges),
        uses=_uses(items),
        set_aside=questions.set_aside,
        contaminated_items=found.same if found is not None else None,
        near_copies=found.near if found is not None else None,
        hardware=hardware_name(job.threads, job.dtype),
    )
    return card.model_copy(update={"estimates": _estimates(card), "changes": _changes(card)})


def _version(card: VersionCard) -> str:
    return card.version


def _scored(item: GateItem) -> ScoredItem:
    assert item.part != "validation", "evaluate has refused validation items"
    return ScoredItem(item_id=item.item_id, group=item.group, part=item.part, uses=item.uses, slices=item.slices)


def _card(
    job: EvaluationJob,
    candidate: Candidate,
    items: Sequence[GateItem],
    digest: str,
    rows: Rows,
    errors: dict[str, str],
) -> VersionCard:
    role: Role = "challenger"
    if candidate.version == job.champion:
        role = "champion"
    elif candidate.kind in ("base", "prompt"):
        role = "base" if candidate.kind == "base" else "prompt"
    elif candidate.reference_only:
        role = "reference"
    answers = rows.starting("answer", candidate.version)
    tokens = sum(row["answer_tokens"] for row in answers)
    parity = rows.get("parity", candidate.version)
    size = sum(f.stat().st_size for f in candidate.path.rglob("*") if f.is_file()) if candidate.path else 0
    return VersionCard(
        version=candidate.version,
        label=candidate.label,
        role=role,
        kind=candidate.kind,
        digest=candidate.digest,
        recipe=candidate.recipe,
        objective=candidate.objective,
        sft_parent=candidate.sft_parent,
        optimised_against=candidate.optimised_against,
        size_bytes=size,
        items_digest=digest if len(answers) == len(items) else "",
        answered=len(answers),
        error=errors.get(candidate.version),
        barred_likeness=_likeness(job, candidate) if role == "challenger" else {},
        refused=candidate.refused,
        parity="not_needed" if candidate.path is None else parity["state"] if parity else "missing",
        parity_error=parity["error"] if parity else None,
        seconds_per_token=sum(row["seconds"] for row in answers) / tokens if tokens else None,
    )


def _likeness(job: EvaluationJob, candidate: Candidate) -> dict[str, float]:
    probe = candidate.probe or (candidate.path.parent / "probe.json" if candidate.path else None)
    return barred_likeness(probe, job.barred) if probe is not None else {}


def _uses(items: Sequence[GateItem]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in sorted(items, key=lambda item: item.uses):
        counts[str(item.uses)] = counts.get(str(item.uses), 0) + 1
    return counts


def _gate_scores(
    job: EvaluationJob, items: Sequence[GateItem], rows: Rows, names: Sequence[str]
) -> tuple[Values, list[MetricInfo]]:
    scores: Values = {}
    infos = []
    for name in sorted(set(job.config.metrics)):
        metric = find_metric(name)
        by_version = {}
        for version in names:
            by_version[version] = tuple(_score(metric, item, rows, version) for item in items)
        if any(value is not None for values in by_version.values() for value in values):
            scores[name] = by_version
            infos.append(
                MetricInfo(name=name, direction=metric.direction, binary=metric.binary, description=metric.description)
            )
    return scores, infos


def _score(metric: Metric, item: GateItem, rows: Rows, version: str) -> float | None:
    row = rows.get("answer", version, item.item_id)
    return metric.score(answered(item, row, rows.get("unsafe", version, item.item_id))) if row else None


def _add_judged(
    job: EvaluationJob,
    items: Sequence[GateItem],
    rows: Rows,
    names: Sequence[str],
    scores: Values,
    infos: list[MetricInfo],
    judges: Sequence[JudgeReport],
) -> None:
    """Win-rates as values 0..1 per item, the champion's being 0.5 by definition: then they pair like any metric."""
    for index, report in enumerate(judges):
        if report.state != "ok":
            continue
        for against in OPPONENTS:
            name = win_rate_name(index, report.name, against)
            by_version: dict[str, tuple[float | None, ...]] = {}
            for version in names:
                found = [rows.get("judged", str(index), against, version, item.item_id) for item in items]
                if all(row is not None for row in found):
                    by_version[version] = tuple(row["value"] for row in found if row is not None)
            if not by_version:
                continue
            whom = "the champion" if against == "champion" else "the recipe's own sft stage"
            said = f"Share of answers that judge {report.name} prefers to those of {whom}; ties half"
            if job.champion in names:
                by_version[job.champion] = (0.5,) * len(items)
            given = [(name, said + ".", by_version)]
            if report.length_controlled:
                controlled = {v: _controlled(job, rows, items, v, against, seen) for v, seen in by_version.items()}
                given = [(name, f"{said}; at equal lengths.", controlled), (f"{name}_raw", said + ".", by_version)]
            for called, text, values in given:
                scores[called] = values
                infos.append(
                    MetricInfo(
                        name=called, direction="higher", binary=False, description=text, judged_by=report.model_digest
                    )
                )


def _controlled(
    job: EvaluationJob,
    rows: Rows,
    items: Sequence[GateItem],
    version: str,
    against: Literal["champion", "sft"],
    values: tuple[float | None, ...],
) -> tuple[float | None, ...]:
    """A version's preferences with what length explains taken off."""
    own = next(candidate for candidate in job.versions if candidate.version == version)
    opponent = job.champion if against == "champion" else own.sft_parent
    if version == opponent or opponent is None:
        return values
    lengths = [
        np.array([_length(rows, name, item) for item in items], dtype=np.float64) for name in (version, opponent)
    ]
    controlled = length_controlled(np.array(values, dtype=np.float64), *lengths)
    return tuple(round(float(value), 9) for value in controlled)


def _length(rows: Rows, version: str, item: GateItem) -> int:
    row = rows.get("answer", version, item.item_id)
    return int(row["answer_tokens"]) if row is not None else 0


def _regression(rows: Rows, names: Sequence[str], infos: list[MetricInfo]) -> Table:
    by_version = {v: {row["item_id"]: row for row in rows.starting("regression", v)} for v in names}
    by_version = {version: found for version, found in by_version.items() if found}
    if not by_version:
        return Table()
    ids = sorted(set().union(*by_version.values()))
    tasks = {row["item_id"]: row["task"] for found in by_version.values() for row in found.values()}
    infos += _REGRESSION
    return Table(
        items=tuple(ScoredItem(item_id=i, group=i, part="frozen", slices={"ability": tasks[i]}) for i in ids),
        scores={
            name: {
                version: tuple(found[i][field] if i in found else None for i in ids)
                for version, found in by_version.items()
            }
            for name, field in FIELDS.items()
        },
    )


def _estimates(card: Scorecard) -> tuple[Estimate, ...]:
    result = []
    for info in card.metrics:
        table = card.table(info)
        for version, values in sorted(table.scores[info.name].items()):
            for part in _PARTS:
                if info.table == "regression" and part != "all":
                    continue
                groups: dict[str, list[float]] = {}
                for item, value in zip(table.items, values, strict=True):
                    if value is not None and _in_part(item, part):
                        groups.setdefault(item.group, []).append(value)
                if not groups:
                    continue
                means = np.array([math.fsum(groups[g]) / len(groups[g]) for g in sorted(groups)])
                interval = bca_interval(means, draws=_DRAWS, seed=seed_of(f"{info.name}/{version}/{part}"))
                result.append(
                    Estimate(
                        metric=info.name,
                        version=version,
                        part=part,
                        mean=interval.mean,
                        low=interval.low,
                        high=interval.high,
                        items=sum(len(found) for found in groups.values()),
                        units=len(groups),
                    )
                )
    return tuple(result)


def _in_part(item: ScoredItem, part: str) -> bool:
    return part == "all" or (item.uses == 0 if part == "fresh" else item.part == part)


def _changes(card: Scorecard) -> tuple[Change, ...]:
    result: list[Change] = []
    for info in card.metrics:
        table = card.table(info)
        scores = table.scores[info.name]
        slices = sorted({(d, v) for item in table.items for d, v in item.slices.items()})
        counts: dict[str, int] = {}
        for dimension, _ in slices:
            counts[dimension] = counts.get(dimension, 0) + 1
        slices = [pair for pair in slices if counts[pair[0]] > 1]
        for version in sorted(scores):
            own = card.card(version)
            parent = {own.sft_parent} if own is not None and own.sft_parent is not None else set()
            for since in sorted(({card.champion, card.base} | parent) - {version}):
                if since not in scores:
                    continue
                result += _change(card, info, version, since, "all", lambda item: True)
                if since == card.champion:
                    for dimension, value in slices:
                        keep = _slice_filter(dimension, value)
                        result += _change(card, info, version, since, f"{dimension}={value}", keep)
    return tuple(result)


def _slice_filter(dimension: str, value: str) -> Callable[[ScoredItem], bool]:
    return lambda item: item.slices.get(dimension) == value


def _change(
    card: Scorecard, info: MetricInfo, version: str, since: str, name: str, keep: Callable[[ScoredItem], bool]
) -> list[Change]:
    paired = compare(card, info, version, since, keep)
    if not paired.units:
        return []
    # `compare` turns differences so that more is better; a reader wants the metric's own direction.
    own = -paired.differences if info.direction == "lower" else paired.differences
    interval = bca_interval(own, draws=_DRAWS, seed=seed_of(f"{info.name}/{version}/{since}/{name}"))
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
