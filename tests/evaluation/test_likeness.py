"""Near-twins of barred versions are recognised by what they do to the base, whatever their digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.gate import decide
from evaluation.likeness import barred_likeness, likeness
from tests.evaluation.cards import policy, scorecard, share, version
from training.probe import Probe, ProbePrompt

BASE = (-1.0, -2.0, -0.5)


def probe(*effect: float, ids: tuple[int, ...] = (1, 2, 3, 4)) -> Probe:
    moved = tuple(b + e for b, e in zip(BASE, effect, strict=True))
    return Probe(dtype="float32", prompts=(ProbePrompt(ids=ids, version=moved, base=BASE),))


def test_direction_counts_and_strength_does_not() -> None:
    one = probe(0.2, -0.1, 0.3)
    assert likeness(one, probe(0.4, -0.2, 0.6)) == pytest.approx(1.0)
    assert likeness(one, probe(-0.2, 0.1, -0.3)) == pytest.approx(-1.0)
    assert likeness(one, probe(0.1, 0.2, 0.0)) == pytest.approx(0.0)
    assert likeness(one, probe(0.0, 0.0, 0.0)) is None
    assert likeness(one, probe(0.2, -0.1, 0.3, ids=(9, 9, 9, 9))) is None  # other prompts: nothing to compare


def test_barred_versions_are_read_from_their_probes(tmp_path: Path) -> None:
    for name, effect in {"own": (0.2, 0.0, 0.1), "vbad": (0.2, 0.0, 0.1)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "probe.json").write_text(probe(*effect).model_dump_json())
    barred = {"vbad": tmp_path / "vbad" / "probe.json", "vgone": tmp_path / "vgone" / "probe.json"}
    assert barred_likeness(tmp_path / "own" / "probe.json", barred) == {"vbad": pytest.approx(1.0)}
    assert barred_likeness(tmp_path / "nothing" / "probe.json", barred) == {}


def test_a_promotion_of_a_near_twin_says_so() -> None:
    primary = {"champion": share(60, 20), "good": share(60, 45)}
    cards = [version("champion", "champion"), version("good", barred_likeness={"vbad": 0.97, "vother": 0.1})]
    verdict = decide(scorecard(primary, versions=cards), policy())
    assert verdict.decision == "promote"
    assert "barred version vbad did (cosine 0.97)" in verdict.reasons[-1]
    assert "vother" not in " ".join(verdict.reasons)
