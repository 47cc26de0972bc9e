"""Near-twins of barred versions are recognised by what they do to the base, whatever their digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.gate.decide import decide
from evaluation.gate.likeness import barred_likeness, likeness, most_like
from tests.evaluation.cards import policy, scorecard, share, version
from training.stages.probe import Probe, ProbePrompt

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
    assert likeness(one, probe(2e-6, -1e-6, 3e-6)) is None, "rounding has no direction"
    assert likeness(one, probe(0.2, float("nan"), 0.3)) is None


def put(folder: Path, **effects: tuple[float, ...]) -> None:
    for name, effect in effects.items():
        (folder / name).mkdir()
        (folder / name / "probe.json").write_text(probe(*effect).model_dump_json())


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        ((0.1, -0.05, 0.15), 1.0),  # half of what was barred: 0.67 by the distance that releases went by
        ((0.6, -0.3, 0.9), 1.0),  # three times as much of it: 0.5
        ((-0.2, 0.1, -0.3), -1.0),  # the opposite: 0
        ((0.1, 0.2, 0.0), 0.0),  # nothing in common: 0.35
    ],
)
def test_gate_and_release_say_the_same_of_a_version(tmp_path: Path, effect: tuple[float, ...], expected: float) -> None:
    put(tmp_path, new=effect, bad=(0.2, -0.1, 0.3))
    gate = barred_likeness(tmp_path / "new" / "probe.json", {"bad": tmp_path / "bad" / "probe.json"})
    release = most_like(tmp_path, "new", ["bad"])
    assert gate == {"bad": pytest.approx(expected)}
    assert release is not None and release.likeness == gate["bad"]
    assert release.near_twin == (expected == 1.0)


def test_the_most_like_of_the_barred_is_named_and_missing_ones_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, v1=(0.5, 0.1, 0.0), v2=(0.5, 0.11, 0.0), v3=(-0.2, 0.3, 0.0), v4=(0.0, 0.0, 0.0))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "probe.json").write_text("{")
    found = most_like(tmp_path, "v1", ["gone", "broken", "v3", "v2"])
    assert found is not None and found.version == "v2" and found.near_twin
    assert most_like(tmp_path, "v1", []) is None
    assert most_like(tmp_path, "gone", ["v1"]) is None
    assert most_like(tmp_path, "v1", ["v4"]) is None, "a version without an effect is like none"
    broken = {"broken": tmp_path / "broken" / "probe.json", "v2": tmp_path / "v2" / "probe.json"}
    assert set(barred_likeness(tmp_path / "v1" / "probe.json", broken)) == {"v2"}, "one broken file stops no gate"


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
