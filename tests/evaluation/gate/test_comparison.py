"""Two versions beside each other: of one night, and of two nights that asked some items alike."""

from __future__ import annotations

import pytest

from evaluation.gate.comparison import compare_versions, joint_scorecard, version_called
from tests.evaluation.cards import scorecard, share

LAST = scorecard({"champion": share(40, 20), "old": share(40, 10)}, regression={"champion": [1, 0], "old": [1, 1]})
TONIGHT = scorecard({"champion": share(60, 30), "new": share(60, 40)}, regression={"champion": [1, 0], "new": [0, 0]})


def test_versions_of_two_nights_are_paired_on_the_items_that_both_asked() -> None:
    both = joint_scorecard(TONIGHT, "new", LAST, "old")
    assert both is not None
    assert [card.version for card in both.versions] == ["new", "old"]
    assert len(both.gate.items) == 40
    found = {row.metric: row for row in compare_versions(both, "new", "old")}
    new, old = share(60, 40)[:40], share(40, 10)
    assert found["primary"].difference == pytest.approx((sum(new) - sum(old)) / 40)
    assert found["primary"].units == 40
    assert found["regression_accuracy"].difference == -1.0


def test_a_row_of_one_night_is_what_it_was() -> None:
    [row, _] = compare_versions(LAST, "old", "champion")
    assert (row.a, row.b, row.units) == (0.25, 0.5, 40)
    assert row.p_worse is not None and row.p_worse < 0.05


def test_nights_without_a_common_item_or_with_other_hardware_say_nothing_of_each_other() -> None:
    renamed = LAST.gate.model_copy(
        update={"items": tuple(i.model_copy(update={"item_id": f"other-{i.item_id}"}) for i in LAST.gate.items)}
    )
    apart = LAST.model_copy(update={"gate": renamed, "regression": LAST.regression.model_copy(update={"items": ()})})
    assert joint_scorecard(TONIGHT, "new", apart, "old") is None
    assert joint_scorecard(TONIGHT, "new", LAST.model_copy(update={"hardware": "another"}), "old") is None
    assert joint_scorecard(TONIGHT, "nobody", LAST, "old") is None


def test_win_rates_of_two_nights_are_against_two_champions_and_left_out() -> None:
    values = dict.fromkeys(("champion", "old"), (0.5,) * 40)
    table = LAST.gate.model_copy(update={"scores": {**LAST.gate.scores, "win_rate": values}})
    theirs = dict.fromkeys(("champion", "new"), (0.7,) * 60)
    ours = TONIGHT.gate.model_copy(update={"scores": {**TONIGHT.gate.scores, "win_rate": theirs}})
    both = joint_scorecard(
        TONIGHT.model_copy(update={"gate": ours}), "new", LAST.model_copy(update={"gate": table}), "old"
    )
    assert both is not None and "win_rate" not in both.gate.scores


def test_a_version_is_found_by_a_beginning_of_its_name() -> None:
    found = version_called(LAST, "champ")
    assert found is not None and found.version == "champion"
    assert version_called(LAST, "x") is None
