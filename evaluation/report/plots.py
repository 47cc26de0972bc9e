"""Draw small plots as SVG text that can stand inside a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

Point = tuple[str, float, float, float]
"""Label, estimate, lower and upper limit."""


def difference_plot(points: Sequence[Point], direction: str = "higher") -> str:
    """Draw paired differences with their intervals, zero marked. Empty text without points.

    Args:
        points: what to draw, from top to bottom.
        direction: which way the metric is better, higher or lower: an interval wholly on that side of zero is green,
            one wholly on the other is red. neutral: none is either.
    """
    better = {"higher": 1, "lower": -1}.get(direction, 0)
    return _intervals(points, better=better, zero=True)


def means_plot(points: Sequence[Point]) -> str:
    """Draw means with their intervals. Empty text without points."""
    return _intervals(points, better=0, zero=False)


def bars_plot(points: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw one bar for each label, for costs and times. Empty text without points."""
    if not points:
        return ""
    from matplotlib.figure import Figure

    with _quiet():
        figure = Figure(figsize=(7.0, 0.7 + 0.38 * len(points)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(range(len(points)), [value for _, value in points], color="#5d6d7e", height=0.6)
        axes.set_xlabel(unit)
        _finish(axes, [label for label, _ in points])
        return _svg(figure)


def _intervals(points: Sequence[Point], *, better: int, zero: bool) -> str:
    if not points:
        return ""
    from matplotlib.figure import Figure

    with _quiet():
        figure = Figure(figsize=(7.0, 0.7 + 0.38 * len(points)), layout="constrained")
        axes = figure.add_subplot()
        for row, (_, mean, low, high) in enumerate(points):
            worst, best = sorted((better * low, better * high))
            color = "#c0392b" if best < 0 else "#1e8449" if worst > 0 else "#34495e"
            axes.plot([low, high], [row, row], color=color, linewidth=2.2, solid_capstyle="round")
            axes.plot([mean], [row], "o", color=color, markersize=6)
        if zero:
            axes.axvline(0.0, color="#888", linewidth=1)
            axes.set_xlabel({1: "better \u2192", -1: "\u2190 better"}.get(better, ""))
        _finish(axes, [label for label, *_ in points])
        return _svg(figure)


def _quiet() -> Any:
    """No pyplot: it keeps global state. A fixed salt makes the same numbers give the same bytes."""
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "ratchet", "svg.fonttype": "none"})


def _finish(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", color="#eee")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _svg(figure: Any) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
