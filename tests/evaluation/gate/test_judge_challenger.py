"""Harm is what exceeds the noise of the instrument: below that nothing rejects a challenger and no slice blocks."""

from __future__ import annotations

import pytest

from evaluation.gate.decide import decide
from evaluation.gate.policy import ForgettingBudget, Guard
from evaluation.gate.verdict import ChallengerVerdict
from evaluation.scorecard import NoiseFloor
from tests.evaluation.cards import policy, scorecard, share

N = 60


def judged(noise: dict[str, float]) -> ChallengerVerdict:
    """A challenger that is worse by ten points on everything, half of them in slice a."""
    worse = share(N, N - 6)
    night = scorecard(
        {"champion": share(N, N), "new": worse, "base": share(N, N)},
        slices=[{"task": "ab"[i >= N - 30]} for i in range(N)],
        guard={"champion": share(N, N), "new": worse, "base": share(N, N)},
        regression={"champion": share(N, N), "new": worse, "base": share(N, N)},
        noise={name: NoiseFloor(same_weights=floor, same_weights_items=16) for name, floor in noise.items()},
    )
    rules = policy(
        guards=(Guard(metric="guard", margin=0.05),),
        slices=("task",),
        forgetting=ForgettingBudget(since_champion=0.05, since_base=0.05),
    )
    [verdict] = decide(night, rules).challengers
    return verdict


def test_harm_beyond_the_noise_rejects_and_blocks() -> None:
    verdict = judged({})
    assert verdict.decision == "reject"
    assert [s.name for s in verdict.slices if s.harmed] == ["task=b"]
    text = " ".join(verdict.reasons)
    for word in ("primary is worse", "Guard guard falls", "Slice task=b", "fell by 0.100 since the champion"):
        assert word in text


@pytest.mark.parametrize(
    ("metric", "word"),
    [("primary", "primary is worse"), ("guard", "Guard guard falls"), ("regression_accuracy", "fell by")],
)
def test_what_is_within_one_metric_s_noise_is_not_held_against_a_challenger(metric: str, word: str) -> None:
    text = " ".join(judged({metric: 0.25}).reasons)
    assert word not in text
    assert ("Slice task=b" in text) == (metric != "primary")


def test_noise_alone_rejects_nobody() -> None:
    verdict = judged({"primary": 0.25, "guard": 0.25, "regression_accuracy": 0.25})
    assert verdict.decision == "inconclusive"
    assert verdict.harm_p_value is not None and verdict.harm_p_value > 0.5
