"""Likeness of versions, by what their probes recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.likeness import likeness, most_like
from training.probe import Probe, ProbePrompt


def probe(*effect: float, ids: tuple[int, ...] = (1, 2, 3)) -> Probe:
    base = (-1.0,) * (len(ids) - 1)
    prompt = ProbePrompt(ids=ids, version=tuple(b + e for b, e in zip(base, effect, strict=True)), base=base)
    return Probe(dtype="float32", prompts=(prompt,))


def test_the_same_is_alike_the_opposite_is_not_and_another_base_cannot_be_compared() -> None:
    assert likeness(probe(0.5, 0.1), probe(0.5, 0.1)) == pytest.approx(1.0)
    assert likeness(probe(0.5, 0.1), probe(-0.5, -0.1)) == pytest.approx(0.0)
    assert likeness(probe(0.5, 0.1), probe(0.5, 0.12)) == pytest.approx(0.98, abs=0.01)
    assert likeness(probe(0.5, 0.0), probe(0.0, 0.5)) == pytest.approx(0.29, abs=0.01)
    assert likeness(probe(0.5, 0.1), probe(0.5, 0.1, ids=(1, 2, 4))) is None


def test_the_most_like_of_the_barred_is_named_and_missing_ones_are_passed_over(tmp_path: Path) -> None:
    for name, effect in {"v1": (0.5, 0.1), "v2": (0.5, 0.11), "v3": (-0.2, 0.3)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "probe.json").write_text(probe(*effect).model_dump_json())
    found = most_like(tmp_path, "v1", ["gone", "v3", "v2"])
    assert found is not None and found.version == "v2" and found.near_twin
    assert most_like(tmp_path, "v1", []) is None
    assert most_like(tmp_path, "gone", ["v1"]) is None
