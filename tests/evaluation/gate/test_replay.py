"""Verdicts from stored items: the same to the last digit, under another policy another, and never from torn files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluation.gate.comparison import compare_versions, version_called
from evaluation.gate.decide import decide
from evaluation.gate.policy import GatePolicy
from evaluation.gate.power import describe_power, minimum_detectable_effect
from evaluation.gate.replay import replay, stored_scorecard
from evaluation.run.run import evaluate
from evaluation.scorecard import read_scorecard
from infra.errors import CorruptArtifact, NotFound
from tests.evaluation.cards import policy, scorecard, share
from tests.evaluation.night import build_night

RULES = policy(primary="loss", min_units=8, min_fresh_units=4, min_slice_units=4)


@pytest.fixture(scope="module")
def folder(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluation's output."""
    night = build_night(tmp_path_factory.mktemp("night"), tiny_base, items=16)
    out = tmp_path_factory.mktemp("out")
    evaluate(night.job(out))
    return out


def test_replay_from_the_items_table_is_the_verdict_exactly(folder: Path) -> None:
    verdict = decide(read_scorecard(folder), RULES)
    assert replay(folder, RULES) == verdict
    assert verdict.challengers[0].gain is not None
    other = replay(folder, policy(primary="loss", min_units=1000))
    assert (other.decision, other.scorecard_digest) == ("inconclusive", verdict.scorecard_digest)
    assert "992 more are needed" in other.reasons[0]


def test_the_table_alone_gives_back_every_value(folder: Path) -> None:
    assert stored_scorecard(folder).gate == read_scorecard(folder).gate


def test_torn_or_foreign_files_are_not_replayed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no scorecard"):
        replay(tmp_path, RULES)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    text = (copy / "scorecard.json").read_text()
    (copy / "items.parquet").write_bytes((copy / "items.parquet").read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifact, match="was changed, or belongs to another night"):
        replay(copy, RULES)
    (copy / "items.parquet").unlink()
    with pytest.raises(NotFound, match="fetch it from the night's run"):
        replay(copy, RULES)
    shutil.copy2(folder / "items.parquet", copy)
    card = read_scorecard(copy)
    first = card.gate.scores["loss"][card.champion]
    assert first[0] is not None
    (copy / "scorecard.json").write_text(text.replace(str(first[0]), str(first[0] + 1), 1))
    with pytest.raises(CorruptArtifact, match="other values"):
        replay(copy, RULES)


def test_any_two_versions_are_compared_in_pairs() -> None:
    card = scorecard({"champion": share(60, 20), "a": share(60, 45), "base": share(60, 20)})
    [row] = compare_versions(card, "a", "champion")
    assert (row.a, row.units) == (0.75, 60)
    assert row.b == pytest.approx(1 / 3)
    assert row.difference == pytest.approx(25 / 60)
    assert row.low < row.difference < row.high
    assert row.p_better is not None and row.p_better < 0.001
    [back] = compare_versions(card, "champion", "a")
    assert back.difference == pytest.approx(-25 / 60)
    assert back.p_worse == row.p_better
    [equal] = compare_versions(card, "base", "champion")
    assert (equal.difference, equal.p_better) == (0.0, 1.0)
    with pytest.raises(NotFound, match="zzz is not on the scorecard"):
        compare_versions(card, "zzz", "a")
    assert version_called(card, "challenger") is not None
    assert version_called(card, "cham") is not None  # the beginning of one name only
    assert version_called(card, "nobody") is None


def test_planning_says_what_a_gate_set_can_see() -> None:
    rules = GatePolicy(alpha_night=0.05)
    assert minimum_detectable_effect(rules, 495) == pytest.approx(0.05, abs=2e-4)
    assert minimum_detectable_effect(rules, 495, challengers=4) > 0.05
    assert "with 100 conversations the gate sees gains from about 11 points" in describe_power(rules, 100)
    assert "5 points would take 495" in describe_power(rules, 100)
