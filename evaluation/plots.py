"""Small plots as SVG text that can stand inside a page."""

from __future__ import annotations

import io
from collections.abc import Sequence

Point = tuple[str, float, float, float]
"""Label, estimate, lower and upper limit."""


def difference_plot(points: Sequence[Point]) -> str:
    """Paired differences with their intervals, zero marked. Empty text without points."""
    return _intervals(points, zero=True)


def means_plot(points: Sequence[Point]) -> str:
    """Means with their intervals. Empty text without points."""
    return _intervals(points, zero=False)


def _intervals(points: Sequence[Point], *, zero: bool) -> str:
    if not points:
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # No pyplot: it keeps global state. A fixed salt makes the same numbers give the same bytes.
    with rc_context({"svg.hashsalt": "ratchet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 0.7 + 0.38 * len(points)), layout="constrained")
        axes = figure.add_subplot()
        for row, (_, mean, low, high) in enumerate(points):
            color = "#c0392b" if zero and high < 0 else "#1e8449" if zero and low > 0 else "#34495e"
            axes.plot([low, high], [row, row], color=color, linewidth=2.2, solid_capstyle="round")
            axes.plot([mean], [row], "o", color=color, markersize=6)
        if zero:
            axes.axvline(0.0, color="#888", linewidth=1)
        axes.set_yticks(range(len(points)), [label.replace("$", r"\$") for label, *_ in points])
        axes.set_ylim(len(points) - 0.5, -0.5)
        axes.grid(axis="x", color="#eee")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
