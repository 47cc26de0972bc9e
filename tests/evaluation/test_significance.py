"""The statistics against published numbers, exact enumeration and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluation.significance import (
    bca_interval,
    flips_needed,
    holm,
    margin_for_units,
    normal_quantile,
    normal_upper,
    paired_binary_margin_p,
    seed_of,
    sign_flip_p_values,
    tango_z,
    units_for_margin,
)


def test_sign_flips_approach_the_exact_randomisation_p_value() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, -0.4, 0.6, 0.1, 0.05, -0.2, 0.7])
    exact = np.mean(
        [np.dot(signs, values) >= values.sum() - 1e-12 for signs in itertools.product((1, -1), repeat=len(values))]
    )
    [found] = sign_flip_p_values(values[:, None], flips=200_000, seed=1)
    assert found == pytest.approx(exact, abs=0.002)


def test_columns_do_not_influence_one_another_and_zero_rows_count_for_nothing() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.2, 1.0, (40, 3))
    together = sign_flip_p_values(values, flips=5000, seed=9)
    alone = [sign_flip_p_values(values[:, [k]], flips=5000, seed=9)[0] for k in range(3)]
    assert together.tolist() == alone
    assert sign_flip_p_values(np.zeros((40, 1)), flips=100, seed=0)[0] == 1.0
    assert sign_flip_p_values(np.zeros((0, 2)), flips=100, seed=0).tolist() == [1.0, 1.0]


def test_sign_flip_p_values_are_uniform_under_the_null() -> None:
    generator = np.random.default_rng(3)
    values = generator.choice([-1.0, 0.0, 1.0], size=(60, 2000))
    p = sign_flip_p_values(values, flips=2000, seed=5)
    # 2,000 binomial draws at 5%: 99.9% lie between 70 and 131; ties make it a little conservative.
    assert 50 <= np.count_nonzero(p <= 0.05) <= 131


def test_tango_agrees_with_his_published_example() -> None:
    """Tango (1998): 44 pairs of contact lenses, one discordant pair against the new method, margin 10 points."""
    z = tango_z(wins=0, losses=1, units=44, difference=-0.10)
    assert z == pytest.approx(1.709, abs=5e-4)
    assert normal_upper(z) == pytest.approx(0.044, abs=5e-4)
    p = paired_binary_margin_p(np.zeros(44), np.array([1.0] + [0.0] * 43), 0.10)
    assert p == pytest.approx(normal_upper(z))


def test_tango_without_a_margin_is_mcnemar() -> None:
    assert tango_z(wins=15, losses=5, units=100, difference=0.0) == pytest.approx((15 - 5) / np.sqrt(15 + 5))


def test_a_group_that_moves_together_counts_once_and_independent_items_count_more() -> None:
    """Ten items lost of 500, in two whole groups of five or spread over ten groups: the spread says more."""
    wins = np.zeros(100)
    together, spread = np.zeros(100), np.zeros(100)
    together[:2], spread[:10] = 1.0, 0.2
    assert paired_binary_margin_p(wins, spread, 0.05) < paired_binary_margin_p(wins, together, 0.05)
    # Whole groups are singletons in effect: Tango on 100 units, to the last digit.
    assert paired_binary_margin_p(wins, together, 0.05) == pytest.approx(normal_upper(tango_z(0, 2, 100, -0.05)))
    assert paired_binary_margin_p(np.zeros(0), np.zeros(0), 0.05) == 1.0


def test_turning_a_loss_into_a_win_never_raises_a_margin_p_value_that_matters() -> None:
    """Singletons: always. Groups: wherever a verdict could hang on it (p between 1e-5 and 0.2)."""
    generator = np.random.default_rng(11)
    for _ in range(3000):
        units, size = int(generator.integers(5, 120)), int(generator.integers(1, 7))
        shares = generator.dirichlet([1.0, 4.0, 1.0])
        items = generator.choice([1, 0, -1], p=shares, size=(units, size))
        margin = float(generator.choice([0.02, 0.05, 0.1, 0.2]))
        group = int(generator.integers(units))
        open_ = np.flatnonzero(items[group] < 1)
        if not len(open_):
            continue
        better = items.copy()
        better[group, open_[0]] = 1
        p, q = (paired_binary_margin_p((x > 0).mean(axis=1), (x < 0).mean(axis=1), margin) for x in (items, better))
        if size == 1 or 1e-5 < p < 0.2:
            assert q <= p + 1e-12


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_bca_intervals_cover() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(400):
        interval = bca_interval(generator.exponential(1.0, 60), level=0.9, draws=600, seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    # A 90% interval of a skewed mean at n = 60 covers about 88%; 340 of 400 is four standard errors below 90%.
    assert 336 <= covered <= 384


def test_bca_leans_to_the_side_of_the_skew_and_knows_constants() -> None:
    values = np.array([0.0] * 30 + [1.0] * 3)
    interval = bca_interval(values, draws=4000, seed=1)
    assert interval.high - interval.mean > interval.mean - interval.low > 0
    constant = bca_interval(np.full(10, 0.25))
    assert (constant.mean, constant.low, constant.high) == (0.25, 0.25, 0.25)


def test_the_order_of_values_does_not_move_an_interval() -> None:
    values = np.random.default_rng(4).normal(size=50)
    assert bca_interval(values, seed=3) == bca_interval(values[::-1], seed=3)


def test_planning() -> None:
    assert units_for_margin(0.05, variance=0.2, alpha=0.05, power=0.8) == 495
    assert margin_for_units(495, variance=0.2, alpha=0.05, power=0.8) == pytest.approx(0.05, abs=1e-4)
    assert flips_needed(16, 0.05) == 32_000
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)
    assert seed_of("a") != seed_of("b")
