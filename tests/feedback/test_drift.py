from __future__ import annotations

from pathlib import Path

import pytest

from feedback.drift import drift
from feedback.examples import Example
from tests.feedback.test_expectations import example


@pytest.fixture(scope="module")
def calm() -> list[Example]:
    return [
        example(n, messages=[{"role": "user", "content": " ".join(["word"] * (5 + n % 7))}], task=f"t{n % 3}")
        for n in range(120)
    ]


def test_the_same_traffic_is_calm_and_other_traffic_is_not(calm: list[Example], tmp_path: Path) -> None:
    still = drift(calm[::2], calm[1::2], tmp_path / "a.html")
    assert (still.share, still.drifted) == (0.0, False) and "prompt_words" in still.columns
    assert still.html is not None and "http://" not in still.html.read_text()[:200]
    other = [
        example(
            n,
            messages=[{"role": "user", "content": "sehr lange " * 40}],
            task="new",
            completion="ja " * 50,
            trusted=True,
        )
        for n in range(80)
    ]
    moved = drift(other, calm, tmp_path / "b.html")
    assert moved.drifted and moved.columns["prompt_words"] > 1 and moved.columns["task"] > 1


def test_too_few_rows_say_nothing(calm: list[Example], tmp_path: Path) -> None:
    report = drift(calm[:5], calm, tmp_path / "c.html")
    assert (report.share, report.drifted, report.html) == (None, False, None)
    assert "5 current" in report.left_out["all"]
