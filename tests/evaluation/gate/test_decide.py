"""Verdicts: what promotes, what rejects, and everything that must fail closed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evaluation.gate.decide import decide
from evaluation.gate.policy import GatePolicy, Guard
from evaluation.gate.verdict import Decision
from evaluation.scorecard import JudgeReport, NoiseFloor, Scorecard
from evaluation.significance import flips_needed
from tests.evaluation.cards import policy, scorecard, share, version

N = 60
BETTER = {"champion": share(N, 20), "good": share(N, 45)}


def decision_of(card: Scorecard, rules: GatePolicy, name: str) -> Decision:
    return next(c.decision for c in decide(card, rules).challengers if c.version == name)


def test_a_clearly_better_challenger_is_promoted_with_its_numbers() -> None:
    verdict = decide(scorecard(BETTER), policy())
    assert (verdict.decision, verdict.winner) == ("promote", "good")
    assert "+41.7 points" in verdict.reasons[0]
    assert "60 units" in verdict.reasons[0]
    assert not verdict.needs_approval
    assert decide(scorecard(BETTER), policy(require_approval=True)).needs_approval


def test_replaying_a_stored_scorecard_gives_the_same_verdict() -> None:
    card = scorecard({**BETTER, "bad": share(N, 5)})
    stored = Scorecard.model_validate_json(card.model_dump_json())
    assert decide(stored, policy()) == decide(card, policy())


def test_a_worse_challenger_is_rejected_and_an_equal_one_inconclusive() -> None:
    card = scorecard({"champion": share(N, 40), "bad": share(N, 15), "equal": share(N, 40)})
    verdict = decide(card, policy())
    assert verdict.decision == "inconclusive"
    assert decision_of(card, policy(), "bad") == "reject"
    assert decision_of(card, policy(), "equal") == "inconclusive"
    alone = scorecard({"champion": share(N, 40), "bad": share(N, 15)})
    assert decide(alone, policy()).decision == "reject"
    assert "41.7 points" in decide(alone, policy()).reasons[0]


def test_inconclusive_says_how_many_more_items_it_would_take() -> None:
    champion = [float(i % 5 < 2) for i in range(N)]
    slightly = list(champion)
    for i in (0, 3, 8):
        slightly[i] = 1.0
    slightly[5] = 0.0
    groups = [f"g{i // 2:03d}" for i in range(N)]
    [found] = decide(scorecard({"champion": champion, "slight": slightly}, groups=groups), policy()).challengers
    assert found.decision == "inconclusive"
    assert found.more_units is not None and found.more_items == 2 * found.more_units
    assert f"{found.more_items} items" in found.reasons[-1]


def test_the_gain_must_exceed_minimum_effect_and_noise_floor() -> None:
    assert decide(scorecard(BETTER), policy(minimum_effect=0.35)).decision == "inconclusive"
    noisy = scorecard(BETTER, noise={"primary": NoiseFloor(same_weights=0.01, seed_to_seed=0.35)})
    verdict = decide(noisy, policy())
    assert (verdict.decision, verdict.floor) == ("inconclusive", 0.35)


def test_the_best_of_several_wins_and_ties_go_to_the_cheaper() -> None:
    primary = {"champion": share(N, 20), "a": share(N, 45), "b": share(N, 50), "c": share(N, 50)}
    sizes = {"a": 1, "b": 200, "c": 100}
    cards = [
        version(name, "champion" if name == "champion" else "challenger", size_bytes=sizes.get(name, 0))
        for name in primary
    ]
    verdict = decide(scorecard(primary, versions=cards), policy())
    assert verdict.winner == "c"
    assert "Also passed: a, b" in verdict.reasons[-1]
    noisy = scorecard(primary, versions=cards, noise={"primary": NoiseFloor(same_weights=0.1)})
    assert decide(noisy, policy()).winner == "a"


def test_holm_counts_every_challenger_launched() -> None:
    champion = [0.0] * 40
    close = share(40, 5)  # five wins, no loss: p = 1/32
    card = scorecard({"champion": champion, "close": close})
    assert decide(card, policy()).decision == "promote"
    assert decide(scorecard({"champion": champion, "close": close}, failed=["x"]), policy()).decision == "inconclusive"
    twin = scorecard(
        {"champion": champion, "close": close, "twin": [0.0] * 40},
        versions=[version("champion", "champion"), version("close"), version("twin", digest="digest-champion")],
    )
    assert decide(twin, policy()).decision == "inconclusive"


def test_guards_decide_three_ways() -> None:
    rules = policy(guards=(Guard(metric="guard", margin=0.1),))
    fine = share(N, 50)
    assert decide(scorecard(BETTER, guard={"champion": fine, "good": fine}), rules).decision == "promote"
    worse = share(N, 20)
    verdict = decide(scorecard(BETTER, guard={"champion": fine, "good": worse}), rules)
    assert verdict.decision == "reject"
    assert "falls by 50.0 points" in verdict.reasons[0]
    unclear = [*[0.0] * 6, *[1.0] * 44, *[1.0] * 6, *[0.0] * 4]
    verdict = decide(scorecard(BETTER, guard={"champion": fine, "good": unclear}), rules)
    assert verdict.decision == "inconclusive"
    assert "not shown to be within its margin" in verdict.reasons[0]


def test_a_continuous_guard_is_non_inferior_by_its_margin() -> None:
    rules = policy(guards=(Guard(metric="guard", margin=0.1),))
    base = [1.0 + 0.01 * (i % 7) for i in range(N)]
    for loss, expected in ((0.02, "promote"), (0.3, "reject")):
        shifted = [value - loss - 0.01 * (i % 3) for i, value in enumerate(base)]
        card = scorecard(BETTER, guard={"champion": base, "good": shifted}, guard_binary=False)
        assert decide(card, rules).decision == expected


def test_harm_on_a_slice_blocks_a_gain_on_average() -> None:
    champion = [0.0] * 60 + [1.0] * 20
    good = [1.0] * 60 + [0.0] * 20
    slices = [{"language": "en"}] * 60 + [{"language": "fr"}] * 20
    card = scorecard({"champion": champion, "good": good}, slices=slices)
    verdict = decide(card, policy())
    assert verdict.decision == "reject"
    assert "Slice language=fr is harmed: -100.0 points on 20 units" in verdict.reasons[0]
    assert decide(card, policy(slices=())).decision == "promote"


def test_small_slices_are_pooled_and_listed_as_unjudged() -> None:
    slices = [{"tenant": f"t{i // 6}" if i < 18 else "big"} for i in range(N)]
    [found] = decide(scorecard(BETTER, slices=slices), policy()).challengers
    assert found.unjudged_slices == ("tenant=t0", "tenant=t1", "tenant=t2")
    assert {result.name: result.units for result in found.slices} == {"tenant=big": 42, "tenant=(pooled)": 18}


def test_forgetting_rejects_with_evidence_and_doubts_without() -> None:
    primary = {"base": share(N, 10), **BETTER}
    rules = policy(forgetting={"since_champion": 0.1, "since_base": 0.15})
    kept = {"base": share(50, 40), "champion": share(50, 40), "good": share(50, 39)}
    assert decide(scorecard(primary, regression=kept), rules).decision == "promote"
    lost = decide(scorecard(primary, regression={**kept, "good": share(50, 10)}), rules)
    assert lost.decision == "reject"
    assert "Base abilities (regression_accuracy) fell by 0.600 since the champion" in lost.reasons[0]
    slow = {"base": share(50, 48), "champion": share(50, 40), "good": share(50, 38)}
    crept = decide(scorecard(primary, regression=slow), rules)
    assert crept.decision == "reject"
    assert "since the base" in crept.reasons[0]
    swapped = [*[0.0] * 8, *[1.0] * 32, *[1.0] * 2, *[0.0] * 8]
    assert decide(scorecard(primary, regression={**kept, "good": swapped}), rules).decision == "inconclusive"
    assert decide(scorecard(primary), rules).decision == "inconclusive"


def test_size_and_speed_budgets() -> None:
    cards = [
        version("champion", "champion", seconds_per_token=0.01),
        version("good", size_bytes=100, seconds_per_token=0.03),
    ]
    card = scorecard(BETTER, versions=cards)
    assert decide(card, policy()).decision == "promote"
    assert decide(card, policy(max_size_bytes=99)).decision == "reject"
    assert decide(card, policy(max_seconds_per_token_ratio=2.0)).decision == "reject"
    unmeasured = scorecard(BETTER)
    assert decide(unmeasured, policy(max_seconds_per_token_ratio=2.0)).decision == "inconclusive"


def test_the_reward_model_it_learned_from_cannot_judge_a_challenger() -> None:
    cards = [version("champion", "champion"), version("good", optimised_against=("r1",))]
    card = scorecard(BETTER, versions=cards)
    judged = card.model_copy(update={"metrics": (card.metrics[0].model_copy(update={"judged_by": "r1"}),)})
    verdict = decide(judged, policy())
    assert verdict.decision == "inconclusive"
    assert "optimised against the reward model that primary comes from" in verdict.reasons[0]
    other = card.model_copy(update={"metrics": (card.metrics[0].model_copy(update={"judged_by": "r2"}),)})
    assert decide(other, policy()).decision == "promote"


def test_a_loss_is_better_when_lower() -> None:
    card = scorecard(BETTER)
    lower = card.model_copy(update={"metrics": (card.metrics[0].model_copy(update={"direction": "lower"}),)})
    assert decide(lower, policy()).decision == "reject"


FAIL_CLOSED = {
    "champion missing": scorecard({"good": share(N, 45), "other": share(N, 5)}),
    "champion unscored": scorecard(
        BETTER, versions=[version("champion", "champion", error="it does not load"), version("good")]
    ),
    "champion on other items": scorecard(
        BETTER, versions=[version("champion", "champion", items_digest="old"), version("good")]
    ),
    "champion's parity failed": scorecard(
        BETTER, versions=[version("champion", "champion", parity="failed"), version("good")]
    ),
    "champion's parity missing": scorecard(
        BETTER, versions=[version("champion", "champion", parity="missing"), version("good")]
    ),
    "challenger on other items": scorecard(
        BETTER, versions=[version("champion", "champion"), version("good", items_digest="old")]
    ),
    "challenger unscored": scorecard(
        BETTER, versions=[version("champion", "champion"), version("good", error="killed")]
    ),
    "contamination": scorecard(BETTER, contaminated=1),
    "judge down": scorecard(BETTER, judges=[JudgeReport(name="openai", state="down", detail="no route")]),
    "judge over budget": scorecard(BETTER, judges=[JudgeReport(name="openai", state="over_budget")]),
    "cannot be served": scorecard(
        BETTER, versions=[version("champion", "champion"), version("good", refused="the engine vllm cannot load it")]
    ),
    "parity missing": scorecard(BETTER, versions=[version("champion", "champion"), version("good", parity="missing")]),
    "parity failed": scorecard(BETTER, versions=[version("champion", "champion"), version("good", parity="failed")]),
    "too few units": scorecard({"champion": share(10, 0), "good": share(10, 10)}),
    "too few groups": scorecard(BETTER, groups=[f"g{i // 6}" for i in range(N)]),
    "same weights": scorecard(
        BETTER, versions=[version("champion", "champion"), version("good", digest="digest-champion")]
    ),
    "no fresh items": scorecard(BETTER, uses=[1] * N),
    "worse on fresh items": scorecard(
        {"champion": [0.0] * 50 + [1.0] * 10, "good": [1.0] * 50 + [0.0] * 1 + [1.0] * 9}, uses=[1] * 50 + [0] * 10
    ),
    "values missing on one side": scorecard({"champion": share(N, 20), "good": [*share(N - 1, 45), None]}),
    "no values at all": scorecard({"champion": share(N, 20), "good": [None] * N}),
    "no challenger": scorecard({"champion": share(N, 20)}),
    "only failed challengers": scorecard({"champion": share(N, 20)}, failed=["sft", "dpo"]),
}


@pytest.mark.parametrize("name", FAIL_CLOSED)
def test_fails_closed(name: str) -> None:
    verdict = decide(FAIL_CLOSED[name], policy())
    assert verdict.decision != "promote"
    assert verdict.winner is None
    assert verdict.reasons
    assert all(challenger.decision != "promote" for challenger in verdict.challengers)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"primary": "bleu"}, "bleu was not measured"),
        ({"guards": (Guard(metric="guard", margin=0.1),)}, "guard was not measured"),
        ({"forgetting": {}}, "regression_accuracy was not measured"),
        ({"min_units": 61}, "1 more are needed"),
        ({"min_fresh_units": 61}, "Only 60 units were used by no earlier verdict"),
    ],
)
def test_what_the_policy_asks_for_and_nobody_measured_fails_closed(changes: dict[str, object], word: str) -> None:
    verdict = decide(scorecard(BETTER), policy(**changes))
    assert verdict.decision == "inconclusive"
    assert word in " ".join(verdict.reasons)


def test_an_unchecked_contamination_fails_only_where_the_policy_asks() -> None:
    card = scorecard(BETTER, contaminated=None)
    assert decide(card, policy()).decision == "promote"
    assert decide(card, policy(require_contamination_check=True)).decision == "inconclusive"


def test_the_yearly_budget_sets_the_night() -> None:
    assert policy(alpha_night=None).alpha == pytest.approx(1 / 365)
    assert policy(alpha_night=None, wrong_promotions_a_year=2).alpha == pytest.approx(2 / 365)
    verdict = decide(scorecard({**BETTER, "also": share(N, 30)}), policy(alpha_night=None))
    assert verdict.flips == flips_needed(2, 1 / 365) == 73_000


@pytest.mark.parametrize(
    "changes",
    [
        {"guards": tuple(Guard(metric=f"m{i}", margin=0.1) for i in range(6))},
        {"guards": (Guard(metric="m", margin=0.1), Guard(metric="m", margin=0.2))},
        {"guards": (Guard(metric="primary", margin=0.1),)},
        {"unheard_of": 1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        policy(**changes)
