"""Length control takes out what length explains, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.judges.length_control import length_controlled


def test_a_judge_that_likes_long_answers_is_even_at_equal_lengths() -> None:
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(20, 200, 400).astype(float), generator.integers(10, 80, 400).astype(float)
    likes_long = (generator.random(400) < 1 / (1 + np.exp((theirs - ours) / 30))).astype(float)
    assert likes_long.mean() > 0.75
    assert length_controlled(likes_long, ours, theirs).mean() == pytest.approx(0.5, abs=0.05)


def test_quality_that_does_not_hang_on_length_stays() -> None:
    generator = np.random.default_rng(2)
    ours, theirs = generator.integers(20, 100, 400).astype(float), generator.integers(20, 100, 400).astype(float)
    better = (generator.random(400) < 0.7).astype(float)
    assert length_controlled(better, ours, theirs).mean() == pytest.approx(better.mean(), abs=0.02)


def test_equal_lengths_and_single_comparisons_change_nothing() -> None:
    values = np.array([1.0, 0.0, 0.5])
    assert length_controlled(values, np.ones(3), np.ones(3)) is values
    assert length_controlled(values[:1], np.ones(1), np.zeros(1)).tolist() == [1.0]
    # Differences that are all the same length apart cannot be told from quality.
    assert length_controlled(values, np.full(3, 9.0), np.zeros(3)).tolist() == values.tolist()


def test_one_sided_preferences_stay_finite() -> None:
    controlled = length_controlled(np.ones(30), np.arange(30.0), np.full(30, 10.0))
    assert np.isfinite(controlled).all()
    assert controlled.mean() > 0.9
