"""Render the scorecard as a page: self-contained HTML (no script, no network), plots as inline SVG, numbers in tables.

People see examples from validation or retired items only (the caller's `examples`), never a gate item's text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.gate.verdict import Verdict
from evaluation.report.examples import ReportExample, read_examples
from evaluation.report.plots import bars_plot, difference_plot, means_plot
from evaluation.scorecard import Change, Estimate, MetricInfo, Scorecard, read_scorecard
from infra.artifact import atomic_write

SHOWN = 8
"""Most examples on the page."""


def publish_report(output_dir: Path, verdict: Verdict | None) -> Path:
    """Write `report.html` (and `verdict.json`) into a finished evaluation's folder, from what is stored there.

    Raises:
        FileNotFoundError: the folder holds no scorecard.
    """
    scorecard = read_scorecard(output_dir)
    if verdict is not None:
        atomic_write(output_dir / "verdict.json", verdict.model_dump_json(indent=1) + "\n")
    write_report(scorecard, verdict, output_dir / "report.html", examples=read_examples(output_dir))
    return output_dir / "report.html"


def write_report(
    scorecard: Scorecard, verdict: Verdict | None, path: Path, *, examples: Sequence[ReportExample] = ()
) -> None:
    """Write the page.

    Args:
        verdict: what was decided; None before the gate.
        examples: answers to items that people may see.
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
        slice_plot=_plot_slices(scorecard, primary, labels),
        forgetting_plot=_plot_forgetting(scorecard, labels),
        since_sft=_since_sft(scorecard, primary),
        seconds=bars_plot(
            [(c.label, 1000 * c.seconds_per_token) for c in scorecard.versions if c.seconds_per_token is not None],
            "milliseconds per new token",
        ),
        sizes=bars_plot(
            [(c.label, c.size_bytes / 1e6) for c in scorecard.versions if c.error is None], "MB on top of the base"
        ),
        uses=_uses(scorecard),
        contamination=" ".join(filter(None, (scorecard.set_aside_note, _contamination(scorecard)))),
        perplexity={e.version: math.exp(e.mean) for e in scorecard.estimates if (e.metric, e.part) == ("loss", "all")},
        forgetting=[
            c
            for c in scorecard.changes
            if c.metric.startswith("regression_") and (c.slice == "all" or c.since == scorecard.champion)
        ],
        groups=_wins_and_losses(scorecard, verdict, examples),
        number=number,
    )
    atomic_write(path, page)


def write_schema(path: Path) -> None:
    """Write the JSON schema of `scorecard.json`."""
    atomic_write(path, json.dumps(Scorecard.model_json_schema(), indent=2) + "\n")


def number(value: float | None, metric: MetricInfo | None = None, *, signed: bool = False) -> str:
    """Format a measured value as people read it: shares of yes/no metrics in per cent, the rest with three digits."""
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
    changes = [
        change
        for change in scorecard.changes
        if change.metric == metric and change.slice == "all" and change.since == scorecard.champion
    ]
    points = [(labels.get(c.version, c.version), c.mean, c.low, c.high) for c in changes]
    return difference_plot(points, _direction(scorecard, metric))


def _direction(scorecard: Scorecard, metric: str) -> str:
    info = scorecard.metric(metric)
    return "higher" if info is None else info.direction


def _plot_means(scorecard: Scorecard, metric: str, labels: Mapping[str, str]) -> str:
    estimates = [e for e in scorecard.estimates if e.metric == metric and e.part == "all"]
    return means_plot([(labels.get(e.version, e.version), e.mean, e.low, e.high) for e in estimates])


def _plot_slices(scorecard: Scorecard, metric: str, labels: Mapping[str, str]) -> str:
    """Of the challengers only: what a reader asks is whom a gain leaves behind."""
    asking = {card.version for card in scorecard.challengers}
    changes = [
        c
        for c in scorecard.changes
        if c.metric == metric and c.slice != "all" and c.since == scorecard.champion and c.version in asking
    ]
    points = [(f"{labels.get(c.version, c.version)}: {c.slice}", c.mean, c.low, c.high) for c in changes]
    return difference_plot(points, _direction(scorecard, metric))


def _plot_forgetting(scorecard: Scorecard, labels: Mapping[str, str]) -> str:
    """Base abilities of every version since the untouched base."""
    changes = [
        c
        for c in scorecard.changes
        if c.metric == "regression_accuracy" and c.slice == "all" and c.since == scorecard.base
    ]
    return difference_plot([(labels.get(c.version, c.version), c.mean, c.low, c.high) for c in changes])


def _since_sft(scorecard: Scorecard, primary: str) -> list[Change]:
    parents = {card.version: card.sft_parent for card in scorecard.versions if card.sft_parent is not None}
    return [
        c
        for c in scorecard.changes
        if c.slice == "all" and c.metric in (primary, "win_rate_sft", "loss") and parents.get(c.version) == c.since
    ]


def _uses(scorecard: Scorecard) -> str:
    """How worn the gate set is, in a sentence."""
    if not scorecard.uses:
        return ""
    counts = {int(times): items for times, items in scorecard.uses.items()}
    total = sum(counts.values())
    mean = sum(times * items for times, items in counts.items()) / total
    return (
        f"{counts.get(0, 0)} of {total} gate items were used by no earlier verdict; "
        f"on average an item was used {mean:.1f} times, at most {max(counts)} times."
    )


def _contamination(scorecard: Scorecard) -> str:
    """What of the gate set training data hold, in a sentence."""
    if scorecard.contaminated_items is None:
        return "Nobody looked for the gate items in training data."
    total = len(scorecard.gate.items)
    return (
        f"Of {total} gate items, {scorecard.contaminated_items} were found in training data as they are, and "
        f"{scorecard.near_copies or 0} as a near copy."
    )


@dataclass(frozen=True)
class _ShownExample:
    """One example on the page."""

    example: ReportExample
    lead: float
    """By how much the challenger is better than the champion."""
    answers: list[tuple[str, str]]
    """Version in words -> its answer, side by side."""


def _wins_and_losses(
    scorecard: Scorecard, verdict: Verdict | None, examples: Sequence[ReportExample]
) -> list[tuple[str, list[_ShownExample]]]:
    """Where the challenger wins most, where it loses most, and, where room is left, the rest. At most `SHOWN` in all.

    The challenger: the winner, or the best.
    """
    challenger = _challenger_shown(scorecard, verdict)
    label = "" if challenger is None else next(c.label for c in scorecard.versions if c.version == challenger)
    info = scorecard.metric(verdict.primary if verdict else _default_primary(scorecard))
    shown = [
        _ShownExample(example, _lead(scorecard, info, example, challenger), _side_by_side(scorecard, example))
        for example in examples
    ]
    won = sorted((each for each in shown if each.lead > 0), key=lambda each: -each.lead)
    lost = sorted((each for each in shown if each.lead < 0), key=lambda each: each.lead)
    even = [each for each in shown if each.lead == 0]
    # Half the room each, and what one side leaves over to the other: a loss is not crowded out by many wins.
    wins = won[: max(SHOWN // 2, SHOWN - len(lost))]
    losses = lost[: SHOWN - len(wins)]
    rest = even[: SHOWN - len(wins) - len(losses)]
    groups = ((f"{label} wins", wins), (f"{label} loses", losses), ("No difference", rest))
    return [(title, group) for title, group in groups if group]


def _lead(scorecard: Scorecard, info: MetricInfo | None, example: ReportExample, challenger: str | None) -> float:
    """How much better the challenger's answer is than the champion's; 0 where that is not known."""
    values = example.metrics.get(info.name, {}) if info is not None else {}
    ours, theirs = values.get(challenger or ""), values.get(scorecard.champion)
    if info is None or ours is None or theirs is None:
        return 0.0
    return theirs - ours if info.direction == "lower" else ours - theirs


def _challenger_shown(scorecard: Scorecard, verdict: Verdict | None) -> str | None:
    if verdict is not None and verdict.winner is not None:
        return verdict.winner
    known = [c for c in verdict.challengers if c.gain is not None] if verdict is not None else []
    if known:
        return max(known, key=lambda c: (c.gain or 0.0, c.version)).version
    return next((card.version for card in scorecard.challengers if card.error is None), None)


def _side_by_side(scorecard: Scorecard, example: ReportExample) -> list[tuple[str, str]]:
    return [
        (f"{card.label} ({card.role})", example.answers[card.version])
        for card in scorecard.versions
        if card.version in example.answers
    ]
