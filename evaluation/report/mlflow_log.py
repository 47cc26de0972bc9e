"""Log a scorecard to MLflow: means as metrics, items and answers as tables, the evaluation's files as artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluation.report.examples import read_examples
from evaluation.scorecard import Scorecard
from infra.telemetry.mlflow_tracker import Tracker


def log_scorecard(
    tracker: Tracker, night_key: str, scorecard: Scorecard, folder: Path, recipes: Mapping[str, str]
) -> None:
    """Log means of every metric on the challengers' runs, the whole scorecard on the night's.

    ``recipes`` maps a version to the recipe whose run is its own.
    """
    for card in scorecard.versions:
        means = {
            f"gate.{e.metric}": e.mean for e in scorecard.estimates if e.version == card.version and e.part == "all"
        }
        if card.version in recipes:
            tracker.metrics(f"{night_key}/{recipes[card.version]}", means)
        if card.version == scorecard.champion:
            tracker.metrics(night_key, {f"champion.{name}": value for name, value in means.items()})
    _log_tables(tracker, night_key, scorecard, folder)
    for name in ("scorecard.json", scorecard.items_file, "record.json"):
        if (folder / name).exists():
            tracker.artifact(night_key, folder / name, "evaluation")


def _log_tables(tracker: Tracker, night_key: str, scorecard: Scorecard, folder: Path) -> None:
    """Log every item's values without its text, and the answers side by side to items that people may see."""
    labels = {card.version: card.label for card in scorecard.versions}
    columns = [(m, v) for m, versions in sorted(scorecard.gate.scores.items()) for v in sorted(versions)]
    rows = [
        [item.item_id, item.group, item.part, *(scorecard.gate.scores[m][v][place] for m, v in columns)]
        for place, item in enumerate(scorecard.gate.items)
    ]
    names = [f"{metric}: {labels.get(version, version)}" for metric, version in columns]
    tracker.table(night_key, "items", ["item", "unit", "part", *names], rows)
    versions = [card.version for card in scorecard.versions]
    answers = [[e.question, e.reference, *(e.answers.get(v, "") for v in versions)] for e in read_examples(folder)]
    tracker.table(night_key, "examples", ["question", "reference", *(labels[v] for v in versions)], answers)
