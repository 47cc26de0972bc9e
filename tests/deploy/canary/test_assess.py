"""The canary's judgement is a function of frozen rows, and keeps its promises at small size (benchmarks at full)."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deploy.canary.assess import Assessment, assess, rescore_verdict
from deploy.canary.policy import CanaryPolicy
from deploy.canary.power import formula_units, plan
from deploy.canary.sequential_tests import log_wealth_counts, log_wealth_not_worse, log_wealth_ratio, log_wealth_worse
from deploy.canary.units import AssignedCount, FrozenUnit, Observations, frozen_before, frozen_units
from deploy.ledger.state import Watch
from feedback.store.rated_units import RatedUnit

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = CanaryPolicy(
    steps=(0.5,),
    step_seconds=0,
    step_units=10,
    margin=0.1,
    minimum_seconds=60,
    deadline_seconds=10_000,
    holdback=0.1,
    holdback_seconds=600,
    window_seconds=10,
    signals={"ratings": 0.8, "rescore": 0.2},
)
WATCH = Watch(
    version="v1",
    previous="base",
    phase="canary",
    opened_seq=3,
    opened_at=T0,
    step=0,
    step_seq=3,
    step_at=T0,
    share=0.5,
    shares=((3, 0.5),),
)
HOLDBACK = WATCH.model_copy(
    update={"phase": "holdback", "champion_seq": 7, "share": 0.9, "step_at": T0 + timedelta(seconds=100)}
)


def people(
    number: int, *, new: float, old: float, share: float = 0.5, seed: int = 1, start: int = 0
) -> list[FrozenUnit]:
    """Users one second apart; `new` and `old` are the shares that each arm satisfies."""
    dice = random.Random(seed)
    found = []
    for i in range(start, start + number):
        treated = dice.random() < share
        score = float(dice.random() < (new if treated else old))
        found.append(FrozenUnit(f"user {i}", treated, share, score, T0 + timedelta(seconds=i)))
    return found


def judged(units: list[FrozenUnit], *, seconds: float = 5000, watch: Watch = WATCH, **more: Any) -> Assessment:
    policy = POLICY.model_copy(update=more.pop("policy", {}))
    return assess(watch, Observations(tuple(units), **more), policy, at=T0 + timedelta(seconds=seconds))


def test_a_worse_version_goes_back_and_says_after_how_many() -> None:
    found = judged(people(300, new=0.3, old=0.9))
    assert (found.decision, found.signal) == ("back", "ratings")
    assert found.crossed_after is not None and found.crossed_after < 60
    assert found.difference is not None and found.difference < -0.4
    before = judged(people(300, new=0.3, old=0.9)[: found.crossed_after - 1])
    assert before.decision == "watch"


def test_a_better_version_goes_forward_but_never_before_its_time() -> None:
    better = people(300, new=0.95, old=0.5)
    assert judged(better).decision == "forward"
    early = judged(better, seconds=59)
    assert early.decision == "watch" and "of watching" in early.reason


def test_no_evidence_means_keep_watching_until_the_deadline() -> None:
    assert judged([]).decision == "watch"
    assert judged(people(20, new=0.8, old=0.8)).decision == "watch"
    late = judged(people(20, new=0.8, old=0.8), seconds=10_001)
    assert late.decision == "deadline" and "no verdict" in late.reason


def test_steps_need_time_and_raters_and_no_bad_sign_and_come_before_forward() -> None:
    ramp = {"steps": (0.2, 0.5), "step_seconds": 100.0}
    first = WATCH.model_copy(update={"share": 0.2, "shares": ((3, 0.2),)})
    units = people(200, new=0.95, old=0.5, share=0.2)
    assert judged(units, watch=first, seconds=99, policy=ramp).decision == "watch"
    found = judged(units, watch=first, policy=ramp)
    assert (found.decision, found.next_share) == ("step", 0.5)
    assert judged(units[:30], watch=first, policy=ramp).decision == "watch"  # too few rated
    doubtful = people(80, new=0.5, old=0.9, share=0.2, seed=5)
    assert judged(doubtful, watch=first, policy=ramp).decision in ("watch", "back")


def test_the_holdback_still_goes_back_and_settles_when_it_is_over() -> None:
    fine = people(100, new=0.8, old=0.8, share=0.9)
    assert judged(fine, watch=HOLDBACK, seconds=300).decision == "watch"
    assert judged(fine, watch=HOLDBACK, seconds=701).decision == "settle"
    assert judged(people(600, new=0.1, old=0.9, share=0.9), watch=HOLDBACK, seconds=300).decision == "back"


def test_a_bad_night_takes_back_the_champion_and_only_spends_its_part() -> None:
    found = judged([], watch=HOLDBACK, seconds=300, rescore_p_values=(0.4, 0.0005))
    assert (found.decision, found.signal) == ("back", "rescore")
    assert judged([], seconds=300, rescore_p_values=(0.0,)).decision == "watch"  # not champion yet
    total = sum(0.01 * 6 / (math.pi * night) ** 2 for night in range(1, 10_000))
    assert total <= 0.01
    assert rescore_verdict([1.0, 0.01 * 6 / (math.pi * 2) ** 2], 0.01) is not None
    assert rescore_verdict([1.0, 0.01 * 6 / (math.pi * 2) ** 2 * 1.01], 0.01) is None
    assert rescore_verdict([0.0001] * 3, 0.0) is None


def test_both_arms_failing_is_an_incident_and_no_verdict() -> None:
    calm = people(400, new=0.9, old=0.9)
    storm = people(200, new=0.05, old=0.15, start=400, seed=3)
    found = judged([*calm, *storm])
    assert found.decision == "incident" and "fail together" in found.reason
    assert judged(calm).decision != "incident"
    # A version that alone fails is no incident; a champion that always failed is none either.
    assert judged(people(400, new=0.05, old=0.9)).decision == "back"
    assert judged(people(400, new=0.05, old=0.05), usual_complaints=0.95).decision != "incident"
    assert judged(storm, usual_complaints=0.1).decision == "incident"


def test_raters_of_one_arm_only_are_remarked_upon() -> None:
    lopsided = [replace(unit, treated=True) for unit in people(40, new=0.8, old=0.8)]
    assert judged(lopsided).rated_more
    assert not judged(people(40, new=0.8, old=0.8)).rated_more


def test_the_report_counts_per_rated_and_per_assigned() -> None:
    found = judged(people(100, new=0.5, old=0.5), assigned=(200, 210))
    assert found.version.rated + found.control.rated == found.rated == 100
    assert found.version.complaints_per_assigned == pytest.approx(found.version.complaints / 200)
    assert found.version.complaints_per_rated == pytest.approx(found.version.complaints / found.version.rated)
    assert judged([]).version.complaints_per_rated is None


def rated(unit: str, arm: str, probability: float, score: float, first_seen: datetime) -> RatedUnit:
    return RatedUnit(unit, arm, probability, score, first_seen, first_seen, trusted=False, ratings=1)


def test_rows_become_units_by_release_and_arm_each_unit_once() -> None:
    at = T0
    rows = {
        3: [
            rated("a", "canary", 0.3, 1, at),
            rated("b", "champion", 0.7, 0, at - timedelta(seconds=1)),
            rated("late", "canary", 0.3, 0, at + timedelta(seconds=1)),
            rated("pin", "pinned", 1.0, 0, at),
            rated("all", "champion", 1.0, 0, at),
        ],
        7: [rated("a", "champion", 0.9, 0, at), rated("c", "holdback", 0.1, 1, at), rated("d", "champion", 0.9, 1, at)],
        9: [rated("e", "champion", 0.9, 0, at)],
    }
    found = frozen_units(HOLDBACK, rows, frozen_before=at)
    assert [(u.unit, u.treated, round(u.share, 9), u.score) for u in found] == [
        ("b", False, 0.3, 0),
        ("a", True, 0.3, 1),
        ("c", False, 0.9, 1),
        ("d", True, 0.9, 1),
    ]
    assert [u.unit for u in frozen_units(WATCH, rows, frozen_before=at)] == ["b", "a"]
    assert frozen_before(POLICY, at) == at - timedelta(seconds=10)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.05, 0.3, 0.5, 0.9])), max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_state_is_recomputed_from_rows_alone(rows: list[tuple[bool, bool, float]]) -> None:
    """What was known after n users does not depend on those after them, nor on the order the rows are read in."""
    units = [
        FrozenUnit(f"u{i}", treated, share, float(satisfied), T0 + timedelta(seconds=i))
        for i, (treated, satisfied, share) in enumerate(rows)
    ]
    complaint = np.array([u.complaint for u in units], dtype=bool)
    treated = np.array([u.treated for u in units], dtype=bool)
    share = np.array([u.share for u in units])
    whole = log_wealth_worse(complaint, treated, share, cap=5.0)
    forward = log_wealth_not_worse(complaint, treated, share, margin=0.05)
    for n in range(0, len(units), 7):
        assert np.allclose(whole[:n], log_wealth_worse(complaint[:n], treated[:n], share[:n], cap=5.0))
        assert np.allclose(forward[:n], log_wealth_not_worse(complaint[:n], treated[:n], share[:n], margin=0.05))
    peaks = [judged(units[:n]).evidence_back for n in range(len(units) + 1)]
    # Once reached, a verdict does not fade with later users (vectorised sums differ in the last bit by length).
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(peaks))


@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.02, 0.98)), min_size=1, max_size=25),
    outcome=st.booleans(),
    share=st.floats(0.02, 0.98),
)
@settings(max_examples=80, deadline=None)
def test_one_more_user_is_a_fair_bet_under_the_null(
    rows: list[tuple[bool, bool, float]], outcome: bool, share: float
) -> None:
    """Whatever came before: averaged over the arm that the next user is dealt to, wealth stays what it was."""
    complaint = np.array([c for c, _, _ in rows] + [outcome])
    shares = np.array([s for _, _, s in rows] + [share])
    past = [t for _, t, _ in rows]
    wealth = {
        arm: np.exp(log_wealth_worse(complaint, np.array([*past, arm]), shares, cap=5.0)[-2:]) for arm in (True, False)
    }
    ratio = {arm: np.exp(log_wealth_ratio(np.array([*past, arm]), shares)[-2:]) for arm in (True, False)}
    for bet in (wealth, ratio):
        expected = share * bet[True][1] + (1 - share) * bet[False][1]
        assert expected == pytest.approx(bet[True][0], rel=1e-9)
    for arm in (True, False):
        assert 1 / 5 - 1e-9 <= wealth[arm][1] / wealth[arm][0] <= 5 + 1e-9  # nobody's influence is above the cap


@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0.05, 0.95)), max_size=25),
    share=st.floats(0.05, 0.95),
    control=st.floats(0.2, 1.0),
    margin=st.sampled_from([0.05, 0.1]),
)
@settings(max_examples=80, deadline=None)
def test_the_forward_bet_gains_nothing_from_a_version_worse_by_the_margin(
    rows: list[tuple[bool, bool, float]], share: float, control: float, margin: float
) -> None:
    def wealth(complaint: bool, treated: bool) -> float:
        return float(
            np.exp(
                log_wealth_not_worse(
                    np.array([c for c, _, _ in rows] + [complaint]),
                    np.array([t for _, t, _ in rows] + [treated]),
                    np.array([s for _, _, s in rows] + [share]),
                    margin=margin,
                )[-1]
            )
        )

    before = 1.0
    if rows:
        before = float(
            np.exp(
                log_wealth_not_worse(
                    np.array([c for c, _, _ in rows]),
                    np.array([t for _, t, _ in rows]),
                    np.array([s for _, _, s in rows]),
                    margin=margin,
                )[-1]
            )
        )
    version = control - margin
    expected = share * (version * wealth(False, True) + (1 - version) * wealth(True, True))
    expected += (1 - share) * (control * wealth(False, False) + (1 - control) * wealth(True, False))
    assert expected <= before * (1 + 1e-9)


def test_false_verdicts_stay_rare_and_worse_versions_go_back_in_time() -> None:
    """A small run of benchmarks/canary_simulation.py; the bounds are 99.9% bounds of the promised rates."""
    rng = np.random.default_rng(3)
    shape, share = (400, 600), np.full((400, 600), 0.5)
    treated = rng.random(shape) < share
    equal = rng.random(shape) >= 0.8
    assert (log_wealth_worse(equal, treated, share, cap=5.0).max(-1) >= math.log(20)).sum() <= 35
    worse = rng.random(shape) >= np.where(treated, 0.7, 0.8)
    assert (log_wealth_not_worse(worse, treated, share, margin=0.1).max(-1) >= math.log(20)).sum() <= 35
    much_worse = rng.random(shape) >= np.where(treated, 0.6, 0.8)
    crossed = log_wealth_worse(much_worse, treated, share, cap=5.0) >= math.log(20)
    first = np.where(crossed.any(-1), crossed.argmax(-1) + 1, np.inf)
    assert np.median(first) <= 1.5 * formula_units(0.5, 0.8, 0.2, 0.05)


def test_the_plan_agrees_with_the_stated_figures_and_grows_with_traffic() -> None:
    assert formula_units(0.05, 0.8, 0.1, 0.05) == pytest.approx(2250, rel=0.01)
    assert formula_units(0.5, 0.8, 0.1, 0.05) == pytest.approx(450, rel=0.01)
    little, much = plan(POLICY, rated_per_day=100), plan(POLICY, rated_per_day=20_000)
    assert little.power_back < 0.1 < 0.95 < much.power_back and much.power_forward > little.power_forward
    assert much.required_back > much.formula_back
    blind = CanaryPolicy(signals={"rescore": 1.0})
    assert plan(blind, rated_per_day=1000).power_back == 0.0


def test_policies_that_contradict_themselves_are_refused() -> None:
    for wrong in (
        {"steps": ()},
        {"steps": (0.5, 0.2)},
        {"steps": (1.5,)},
        {"steps": (1.0,), "holdback": 0.0},
        {"signals": {"ratings": 0.8, "rescore": 0.3}},
        {"signals": {"weather": 0.1}},
        {"minimum_seconds": 10, "deadline_seconds": 5},
    ):
        with pytest.raises(ValidationError):
            CanaryPolicy.model_validate(wrong)
    full = CanaryPolicy(steps=(0.05, 0.25, 1.0), holdback=0.05)
    assert full.shares == (0.05, 0.25, 0.95)
    assert full.alpha("ratings") + full.alpha("rescore") == pytest.approx(full.alpha_back)


def test_users_not_dealt_by_their_shares_stop_the_way_forward_but_not_back() -> None:
    lopsided = AssignedCount(treated=700, both=1000, share=0.5)
    fair = (AssignedCount(treated=510, both=1000, share=0.5), AssignedCount(treated=12, both=200, share=0.05))
    better = people(300, new=0.95, old=0.5)
    found = judged(better, assigned_by_share=(lopsided,))
    assert found.misassigned and found.decision == "watch" and "routing is broken" in found.reason
    assert judged(better, assigned_by_share=fair).decision == "forward"
    assert judged(people(300, new=0.3, old=0.9), assigned_by_share=(lopsided,)).decision == "back"


def test_the_sample_ratio_check_keeps_its_error_rate() -> None:
    dice = np.random.default_rng(5)
    wrong = 0
    for _ in range(300):
        treated = np.cumsum(dice.random(2000) < 0.2)
        wealth = [log_wealth_counts([(int(treated[n - 1]), n, 0.2)]) for n in range(20, 2001, 20)]
        wrong += max(wealth) >= math.log(20)
    assert wrong <= 24, "5% of 300, with three standard errors"
    assert log_wealth_counts([]) == 0.0
