"""A reader takes colours for good and bad: they follow the direction in which a metric is better."""

from __future__ import annotations

import pytest

from evaluation.report.plots import difference_plot

RED, GREEN, GREY = "#c0392b", "#1e8449", "#34495e"


@pytest.mark.parametrize(
    ("low", "high", "direction", "colour"),
    [
        (0.1, 0.3, "higher", GREEN),
        (-0.3, -0.1, "higher", RED),
        (-0.3, -0.1, "lower", GREEN),
        (0.1, 0.3, "lower", RED),
        (-0.1, 0.1, "higher", GREY),
        (0.1, 0.3, "neutral", GREY),
    ],
)
def test_colour_is_good_or_bad_by_the_metrics_direction(low: float, high: float, direction: str, colour: str) -> None:
    drawn = difference_plot([("a version", (low + high) / 2, low, high)], direction)
    assert [c for c in (RED, GREEN, GREY) if c in drawn] == [colour]


def test_nothing_to_draw_is_empty() -> None:
    assert difference_plot([]) == ""
