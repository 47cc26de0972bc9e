"""The scorecard as a page: self-contained HTML (no script, no network), plots as inline SVG, numbers in tables.

People see examples from validation or retired items only (the caller's `examples`), never a gate item's text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.gate import Verdict
from evaluation.plots import difference_plot, means_plot
from evaluation.scorecard import Change, Estimate, MetricInfo, Scorecard, read_scorecard, scorecard_schema
from infra.artifact import atomic_write

EXAMPLES = "examples.json"
"""Answers to items that people may see, beside the scorecard."""


def publish_report(output_dir: Path, verdict: Verdict | None) -> Path:
    """Write `report.html` (and `verdict.json`) into a finished evaluation's folder, from what is stored there.

    Raises:
        FileNotFoundError: the folder holds no scorecard.
    """
    scorecard = read_scorecard(output_dir)
    try:
        examples = json.loads((output_dir / EXAMPLES).read_text())
    except FileNotFoundError:
        examples = []
    if verdict is not None:
        atomic_write(output_dir / "verdict.json", verdict.model_dump_json(indent=1) + "\n")
    write_report(scorecard, verdict, output_dir / "report.html", examples=examples)
    return output_dir / "report.html"


def write_report(
    scorecard: Scorecard, verdict: Verdict | None, path: Path, *, examples: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the page.

    Args:
        verdict: what was decided; None before the gate.
        examples: {"item_id", "question", "reference", "answers": {version: text}} of items that people may see.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    labels = {card.version: card.label for card in scorecard.versions}
    primary = verdict.primary if verdict else _default_primary(scorecard)
    estimates: dict[tuple[str, str, str], Estimate] = {(e.metric, e.version, e.part): e for e in scorecard.estimates}
    page = environment.get_template("report.html.j2").render(
        card=scorecard,
        verdict=verdict,
        labels=labels,
        primary=primary,
        champion=labels.get(scorecard.champion, scorecard.champion),
        rows=_metric_rows(scorecard, estimates),
        parts=[e for e in scorecard.estimates if e.metric == primary],
        differences=_plot_changes(scorecard, primary, labels),
        means=_plot_means(scorecard, primary, labels),
        wins=_plot_changes(scorecard, "win_rate", labels),
        slices=[c for c in scorecard.changes if c.metric == primary and c.slice != "all"],
        forgetting=[
            c
            for c in scorecard.changes
            if c.metric.startswith("regression_") and (c.slice == "all" or c.since == scorecard.champion)
        ],
        examples=[{**example, "shown": _side_by_side(scorecard, example)} for example in examples],
        number=number,
    )
    atomic_write(path, page)


def write_schema(path: Path) -> None:
    """Write the JSON schema of `scorecard.json`."""
    atomic_write(path, json.dumps(scorecard_schema(), indent=2) + "\n")


def number(value: float | None, metric: MetricInfo | None = None, *, signed: bool = False) -> str:
    """A measured value as people read it: shares of yes/no metrics in per cent, the rest with three digits."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}%" if metric is not None and metric.binary else f"{value:{sign}.3f}"


def _default_primary(scorecard: Scorecard) -> str:
    names = [metric.name for metric in scorecard.metrics]
    return next((name for name in ("exact_match", "win_rate", "loss") if name in names), names[0] if names else "")


def _metric_rows(
    scorecard: Scorecard, estimates: Mapping[tuple[str, str, str], Estimate]
) -> list[tuple[MetricInfo, list[Estimate | None]]]:
    return [
        (metric, [estimates.get((metric.name, card.version, "all")) for card in scorecard.versions])
        for metric in scorecard.metrics
    ]


def _plot_changes(scorecard: Scorecard, metric: str, labels: Mapping[str, str]) -> str:
    found: list[Change] = [
        change
        for change in scorecard.changes
        if change.metric == metric and change.slice == "all" and change.since == scorecard.champion
    ]
    return difference_plot([(labels.get(c.version, c.version), c.mean, c.low, c.high) for c in found])


def _plot_means(scorecard: Scorecard, metric: str, labels: Mapping[str, str]) -> str:
    found = [e for e in scorecard.estimates if e.metric == metric and e.part == "all"]
    return means_plot([(labels.get(e.version, e.version), e.mean, e.low, e.high) for e in found])


def _side_by_side(scorecard: Scorecard, example: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"{card.label} ({card.role})", str(example["answers"][card.version]))
        for card in scorecard.versions
        if card.version in example["answers"]
    ]
