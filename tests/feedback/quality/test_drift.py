from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from feedback.examples import Example
from feedback.quality.drift import COLUMNS, DriftConfig, feedback_drift
from tests.feedback.quality.test_expectations import example


@pytest.fixture(scope="module")
def calm() -> list[Example]:
    return [
        example(n, messages=[{"role": "user", "content": " ".join(["word"] * (5 + n % 7))}], task=f"t{n % 3}")
        for n in range(120)
    ]


def test_the_same_traffic_is_calm_and_other_traffic_is_not(calm: list[Example], tmp_path: Path) -> None:
    still = feedback_drift(calm[::2], calm[1::2], tmp_path / "a.html")
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
    moved = feedback_drift(other, calm, tmp_path / "b.html")
    assert moved.drifted and moved.columns["prompt_words"] > 1 and moved.columns["task"] > 1


def asking(number: int, about: str) -> Example:
    said = f"Could you {'kindly ' * (number % 3)}tell me what the {about} will be like for us"
    return example(
        number,
        messages=[{"role": "user", "content": said}],
        completion="well " * (1 + number % 5),
        task=f"t{number % 3}",
    )


SHOP = ("delivery of a parcel", "refund of an invoice")
GARDEN = ("pruning of the roses", "frost on the tomatoes")


def test_a_new_topic_is_drift_even_in_questions_of_the_same_form(tmp_path: Path) -> None:
    shop = [asking(n, SHOP[n % 2]) for n in range(240)]
    still = feedback_drift(shop[:120], shop[120:], tmp_path / "a.html")
    assert not still.drifted and still.columns.get("topic", 0.0) < 0.2
    half = [*shop[:60], *(asking(n, GARDEN[n % 2]) for n in range(60))]
    moved = feedback_drift(half, shop[60:], tmp_path / "b.html")
    assert moved.drifted and moved.columns["topic"] > 1
    assert set(moved.columns) | set(moved.left_out) == set(COLUMNS)
    assert moved.share is not None and moved.share < 0.5  # by the share of columns alone it would be calm
    report = (tmp_path / "b.html").read_text()
    assert "roses" in report and "parcel" in report
    with pytest.raises(ValidationError, match="unknown column 'topics'"):
        DriftConfig(deciding=("topics",))
    unwatched = DriftConfig(deciding=())
    assert not feedback_drift(half, shop[60:], tmp_path / "c.html", unwatched).drifted


def test_the_page_holds_what_users_wrote_as_text_only(tmp_path: Path) -> None:
    """A task is free text of whoever sends the request, and the page puts its values inside of a script."""
    texts = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "<!--", "a & b"]
    before = [example(n, task=texts[n % 2], reason="edit" if n % 3 else "<b onclick=alert(3)>") for n in range(60)]
    now = [example(n, task=texts[n % 4], reason="edit") for n in range(60)]
    report = feedback_drift(now, before, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "alert(1)" in page and "alert(3)" in page, "they are shown"
    assert not [text for text in (*texts[:3], "<b onclick") if text in page]
    plain = {"</script><script>alert(1)</script>": "a", "<img src=x onerror=alert(2)>": "b", "<!--": "c", "a & b": "d"}
    same = [[e.model_copy(update={"task": plain[e.task or ""]}) for e in side] for side in (now, before)]
    assert feedback_drift(same[0], same[1], tmp_path / "b.html").columns == report.columns, (
        "what is measured is the same"
    )


def test_too_few_rows_say_nothing(calm: list[Example], tmp_path: Path) -> None:
    report = feedback_drift(calm[:5], calm, tmp_path / "c.html")
    assert (report.share, report.drifted, report.html) == (None, False, None)
    assert "5 current" in report.left_out["all"]
