"""Ratings left out live: blind to the arm, looking back only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from deploy.canary.policy import CanaryPolicy
from deploy.canary.rating_filter import Rating, counted, exclude_abuse

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = CanaryPolicy(flood_units=3, flood_seconds=10.0)


def word(unit: str, actor: str, second: float, *, trusted: bool = False) -> Rating:
    return Rating(unit, actor, T0 + timedelta(seconds=second), trusted)


def test_one_person_has_one_say_but_may_rate_their_own_answers_often() -> None:
    words = [word("a", "u-a", 0), word("a", "u-a", 100), word("b", "u-a", 200), word("c", "u-c", 300)]
    assert exclude_abuse(words, POLICY) == {"b": "another's"}


def test_somebody_elses_word_on_a_rated_user_does_not_silence_that_user() -> None:
    words = [word("a", "u-a", 0), word("b", "u-b", 100), word("b", "u-a", 200)]
    assert exclude_abuse(words, POLICY) == {}


def test_trusted_raters_and_words_without_a_person_are_let_through() -> None:
    words = [word(f"u{n}", "key-1", 20 * n) for n in range(4)]
    words += [word(f"t{n}", "u-t", 100 + 20 * n, trusted=True) for n in range(4)]
    assert exclude_abuse(words, POLICY) == {}


def test_a_flood_of_fresh_accounts_is_left_out_beyond_the_limit() -> None:
    words = [word(f"x{n}", f"u-x{n}", 0.1 * n) for n in range(6)] + [word("later", "u-later", 60)]
    out = exclude_abuse(words, POLICY)
    assert out == {"x3": "flood", "x4": "flood", "x5": "flood"}
    assert counted(out) == {"flood": 3}


def test_what_is_decided_of_a_user_never_changes_with_what_comes_later() -> None:
    words = [word(f"x{n % 7}", f"u-{n % 5}", 1.7 * n) for n in range(40)]
    whole = exclude_abuse(words, POLICY)
    for end in range(len(words)):
        early = exclude_abuse(words[:end], POLICY)
        rated = {each.unit for each in words[:end]}
        assert early == {unit: why for unit, why in whole.items() if unit in rated}
