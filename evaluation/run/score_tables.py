"""Score the journal's answers: metrics, win-rates and base abilities as per-item values. No model is needed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evaluation.abilities.bundled_pack import ACCURACY, LOSS, PROBABILITY
from evaluation.answers.entries import ANSWERS, UNSAFE, metric_input
from evaluation.job.config import EvaluationJob
from evaluation.job.journal import Journal
from evaluation.judges.length_control import length_controlled
from evaluation.metrics import find_metric
from evaluation.metrics.metric import Metric
from evaluation.run.measure_versions import REGRESSION
from evaluation.run.win_rates import JUDGEMENTS, OPPONENTS, Opponent, win_rate_name
from evaluation.scorecard import JudgeReport, MetricInfo, ScoredItem, Table

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem

Values = tuple[float | None, ...]
"""One value per item, None where the metric does not apply."""

_REGRESSION = tuple(
    MetricInfo(name=name, direction=direction, binary=binary, table="regression", description=text)
    for name, direction, binary, text in (
        (ACCURACY, "higher", True, "Share of base-ability questions answered right (by likelihood, as lm-eval does)."),
        (PROBABILITY, "higher", False, "Probability of the right choice among the choices of base-ability questions."),
        (LOSS, "lower", False, "Loss on held-out passages of plain text, in nats per token."),
    )
)


@dataclass(frozen=True)
class MetricScores:
    """One metric of the gate's items for every version."""

    info: MetricInfo
    by_version: dict[str, Values]


@dataclass(frozen=True)
class ScoreTables:
    """Turns the journal of one evaluation into per-item values."""

    job: EvaluationJob
    items: Sequence[GateItem]
    journal: Journal
    versions: Sequence[str]
    """Those that answered all items, sorted."""

    def metrics(self) -> list[MetricScores]:
        """Score the configured metrics that apply to any item, sorted by name."""
        scores = []
        for name in sorted(set(self.job.config.metrics)):
            metric = find_metric(name)
            by_version = {v: tuple(self._score(metric, item, v) for item in self.items) for v in self.versions}
            if any(value is not None for values in by_version.values() for value in values):
                info = MetricInfo(
                    name=name, direction=metric.direction, binary=metric.binary, description=metric.description
                )
                scores.append(MetricScores(info, by_version))
        return scores

    def win_rates(self, judges: Sequence[JudgeReport]) -> list[MetricScores]:
        """Give win-rates as values 0..1 per item, the champion's 0.5 by definition: then they pair like any metric."""
        scores: list[MetricScores] = []
        for index, report in enumerate(judges):
            if report.state == "ok":
                for against in OPPONENTS:
                    scores += self._win_rate(index, report, against)
        return scores

    def regression(self) -> tuple[Table, Sequence[MetricInfo]]:
        """Tabulate base abilities by document, and their metrics; empty where none were measured."""
        by_version = {version: self.journal.by_item(REGRESSION, version) for version in self.versions}
        by_version = {version: entries for version, entries in by_version.items() if entries}
        if not by_version:
            return Table(), ()
        tasks = {item_id: score.task for entries in by_version.values() for item_id, score in entries.items()}
        ids = sorted(tasks)
        table = Table(
            items=tuple(ScoredItem(item_id=i, group=i, part="frozen", slices={"ability": tasks[i]}) for i in ids),
            scores={
                info.name: {
                    version: tuple(entries[i].value(info.name) if i in entries else None for i in ids)
                    for version, entries in by_version.items()
                }
                for info in _REGRESSION
            },
        )
        return table, _REGRESSION

    def _score(self, metric: Metric, item: GateItem, version: str) -> float | None:
        entry = self.journal.get(ANSWERS, version, item.item_id)
        if entry is None:
            return None
        return metric.score(metric_input(item, entry, self.journal.get(UNSAFE, version, item.item_id)))

    def _win_rate(self, index: int, report: JudgeReport, against: Opponent) -> list[MetricScores]:
        """One judge's win-rate against one opponent, at equal lengths and plain where the judge is controlled."""
        by_version: dict[str, Values] = {}
        for version in self.versions:
            keys = [(str(index), against, version, item.item_id) for item in self.items]
            entries = [self.journal.get(JUDGEMENTS, *key) for key in keys]
            if all(entry is not None for entry in entries):
                by_version[version] = tuple(entry.value for entry in entries if entry is not None)
        if not by_version:
            return []
        if self.job.champion in self.versions:
            by_version[self.job.champion] = (0.5,) * len(self.items)
        opponent = "the champion" if against == "champion" else "the recipe's own sft stage"
        description = f"Share of answers that judge {report.name} prefers to those of {opponent}; ties half"
        name = win_rate_name(index, report.name, against)

        def scores(name: str, description: str, values: dict[str, Values]) -> MetricScores:
            info = MetricInfo(
                name=name, direction="higher", binary=False, description=description, judged_by=report.model_digest
            )
            return MetricScores(info, values)

        if not report.length_controlled:
            return [scores(name, f"{description}.", by_version)]
        controlled = {version: self._controlled(version, against, values) for version, values in by_version.items()}
        return [
            scores(name, f"{description}; at equal lengths.", controlled),
            scores(f"{name}_raw", f"{description}.", by_version),
        ]

    def _controlled(self, version: str, against: Opponent, values: Values) -> Values:
        """A version's preferences with what length explains taken off."""
        own = next(candidate for candidate in self.job.versions if candidate.version == version)
        opponent = self.job.champion if against == "champion" else own.sft_parent
        if version == opponent or opponent is None:
            return values
        lengths = [
            np.array([self._length(name, item) for item in self.items], dtype=np.float64)
            for name in (version, opponent)
        ]
        controlled = length_controlled(np.array(values, dtype=np.float64), *lengths)
        return tuple(round(float(value), 9) for value in controlled)

    def _length(self, version: str, item: GateItem) -> int:
        entry = self.journal.get(ANSWERS, version, item.item_id)
        return entry.answer_tokens if entry is not None else 0
