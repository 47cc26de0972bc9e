"""Draw the report's three pictures, as SVG text that stands inside a page on its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from evaluation.proportions import wilson_interval
from flows.demo.facts import ActFacts, Score

_INK, _MUTED, _GRID = "#1c2733", "#6b7a89", "#e3e8ee"
_COLOURS = ("#8a97a5", "#2f6fde", "#0f9d77", "#d98014", "#c0392b", "#7d4fc4", "#26a5b8", "#a0522d")
_WINDOW = 25


def accuracy(scores: Sequence[Score]) -> str:
    """Share of exactly right answers per version, with 95% intervals."""
    figure, axes = _figure(max(1.6, 0.5 * len(scores) + 0.9))
    for row, score in enumerate(reversed(scores)):
        low, high = score.interval
        axes.plot([low, high], [row, row], color=_COLOURS[1], linewidth=3, alpha=0.35, solid_capstyle="round")
        axes.plot([score.share], [row], "o", color=_COLOURS[1], markersize=7)
        axes.annotate(
            f"{100 * score.share:.0f}%", (score.share, row), textcoords="offset points", xytext=(0, 8), ha="center"
        )
    axes.set_yticks(range(len(scores)), [f"{s.label}\n{s.version}" for s in reversed(scores)])
    axes.set_xlim(-0.02, 1.04)
    axes.set_ylim(-0.6, len(scores) - 0.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    return _svg(figure)


def thumbs(acts: Sequence[ActFacts]) -> str:
    """Share of thumbs up per version (the last 25 of each), as they came in, with the decisions as lines.

    Across runs the number of thumbs, not the clock: the hours in which nobody rates take no room.
    """
    figure, axes = _figure(3.6)
    names = {version: name for act in acts for version, name in act.names.items()}
    everything = sorted((thumb for act in acts for thumb in act.thumbs), key=lambda thumb: thumb.at)
    series: dict[str, list[tuple[int, datetime, bool]]] = {}
    for number, thumb in enumerate(everything):
        series.setdefault(thumb.version, []).append((number, thumb.at, thumb.up))
    for index, (version, points) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        for part, (first, last) in enumerate(_segments([at for _, at, _ in points])):
            xs, middle, low, high = [], [], [], []
            for at in range(first, last):
                seen = [up for _, _, up in points[max(first, at - _WINDOW + 1) : at + 1]]
                if len(seen) < 5:
                    continue
                bounds = wilson_interval(sum(seen), len(seen))
                xs.append(points[at][0])
                middle.append(sum(seen) / len(seen))
                low.append(bounds[0])
                high.append(bounds[1])
            axes.plot(xs, middle, color=colour, linewidth=2, label=names.get(version, version) if part == 0 else None)
            axes.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
    for act in acts:
        for moment in act.happenings:
            if moment.decision and everything:
                x = sum(thumb.at <= moment.at for thumb in everything)
                axes.axvline(x, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
                axes.annotate(
                    moment.event, (x, 1.03), xycoords=("data", "axes fraction"), rotation=25, fontsize=8, color=_INK
                )
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    axes.set_xlabel("thumbs so far, in the order in which they came")
    axes.set_ylabel(f"thumbs up, last {_WINDOW}")
    if series:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return _svg(figure)


def timeline(acts: Sequence[ActFacts]) -> str:
    """What happened when, act by act."""
    rows = [(act, moment) for act in acts for moment in act.happenings]
    figure, axes = _figure(max(1.6, 0.28 * len(rows) + 0.8))
    start = min((act.started for act in acts), default=None)
    for row, (act, moment) in enumerate(reversed(rows)):
        begin = _minutes(moment.at, start)
        colour = _COLOURS[act.act % len(_COLOURS)]
        if moment.until is None:
            axes.plot([begin], [row], "D", color=_COLOURS[4] if moment.decision else colour, markersize=6)
        else:
            width = max(0.03, _minutes(moment.until, start) - begin)
            axes.barh(row, width, left=begin, height=0.6, color=colour, alpha=0.8)
    axes.set_yticks(range(len(rows)), [f"act {act.act}: {moment.event}" for act, moment in reversed(rows)], fontsize=8)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("minutes since the curtain rose")
    return _svg(figure)


def _segments(times: Sequence[datetime]) -> list[tuple[int, int]]:
    """Stretches without a pause of more than a minute and a half, as index ranges."""
    cuts = [0, *(i for i in range(1, len(times)) if times[i] - times[i - 1] > timedelta(seconds=90)), len(times)]
    return [(first, last) for first, last in pairwise(cuts) if last > first]


def _minutes(at: datetime, start: datetime | None) -> float:
    return 0.0 if start is None else (at - start).total_seconds() / 60


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
