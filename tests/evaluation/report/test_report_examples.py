"""Which examples the scorecard's page shows: those that tell champion and challenger apart, on both sides."""

from __future__ import annotations

from pathlib import Path

from evaluation.gate.decide import decide
from evaluation.report.examples import ReportExample
from evaluation.report.report import SHOWN, write_report
from tests.evaluation.cards import policy, scorecard, share


def page(folder: Path, leads: list[float]) -> str:
    card = scorecard({"champion": share(60, 20), "good": share(60, 45)})
    verdict = decide(card, policy())
    examples = [
        ReportExample(
            item_id=f"x{number}",
            question=f"question-{number}.",
            reference="r",
            answers={"champion": "a", "good": "b"},
            metrics={verdict.primary: {"champion": 0.0, "good": lead}},
        )
        for number, lead in enumerate(leads)
    ]
    write_report(card, verdict, folder / "report.html", examples=examples)
    return (folder / "report.html").read_text()


def shown(text: str, count: int) -> list[int]:
    return [number for number in range(count) if f"question-{number}." in text]


def test_the_page_lets_no_script_run(tmp_path: Path) -> None:
    text = page(tmp_path, [0.5])
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text and "<script" not in text


def test_wins_and_losses_come_before_what_is_even(tmp_path: Path) -> None:
    leads = [0.0] * 10 + [0.5, -0.5, 1.0]
    text = page(tmp_path, leads)
    assert shown(text, len(leads)) == [0, 1, 2, 3, 4, 10, 11, 12] and len(shown(text, len(leads))) == SHOWN
    assert text.index("question-12.") < text.index("question-10.") < text.index("question-11.")  # most telling first


def test_a_loss_is_not_crowded_out_by_many_wins(tmp_path: Path) -> None:
    leads = [1.0] * 20 + [-0.1]
    found = shown(page(tmp_path, leads), len(leads))
    assert len(found) == SHOWN and 20 in found
    many = [1.0] * 20 + [-1.0] * 20
    found = shown(page(tmp_path, many), len(many))
    assert sum(number < 20 for number in found) == sum(number >= 20 for number in found) == SHOWN // 2
