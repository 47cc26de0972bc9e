"""The champion beside its predecessor on fresh items: small p-values for worse ones, none where nothing can be said."""

from __future__ import annotations

import pytest

from evaluation.gate.rescore import NotRescored, Rescore, rescore
from evaluation.scorecard import NoiseFloor, Scorecard
from tests.evaluation.cards import policy, scorecard, share, version

N = 40


def card(champion: list[float], before: list[float], **changes: object) -> Scorecard:
    cards = [version("champion", "champion"), version("before", "reference", **changes)]
    uses = [0] * (N // 2) + [3] * (N // 2)
    return scorecard({"champion": champion, "before": before}, versions=cards, uses=uses)


def test_only_fresh_items_speak() -> None:
    worse_on_fresh = [0.0] * (N // 2) + [1.0] * (N // 2)
    better_on_fresh = [1.0] * (N // 2) + [0.0] * (N // 2)
    found = rescore(card(worse_on_fresh, better_on_fresh), "before", policy())
    assert isinstance(found, Rescore)
    assert (found.units, found.mean) == (N // 2, -1.0)
    assert found.p_value < 1e-4
    turned = rescore(card(better_on_fresh, worse_on_fresh), "before", policy())
    assert isinstance(turned, Rescore) and turned.p_value == 1.0
    again = rescore(card(worse_on_fresh, better_on_fresh), "before", policy())
    assert again == found


def test_a_loss_within_the_noise_floor_is_no_word_against_the_champion() -> None:
    before = [1.0] * N
    champion = [0.0] * 8 + [1.0] * (N - 8)
    given = card(champion, before)
    found = rescore(given, "before", policy())
    assert isinstance(found, Rescore) and (found.mean, found.p_value < 0.01) == (-0.4, True)
    for floor, shown in ((0.01, True), (0.4, False), (0.5, False)):
        noisy = given.model_copy(update={"noise": {"primary": NoiseFloor(same_weights=floor, same_weights_items=16)}})
        found = rescore(noisy, "before", policy())
        assert isinstance(found, Rescore) and (found.p_value < 0.05) == shown, floor


def test_nothing_is_said_where_nothing_can_be_compared() -> None:
    same = share(N, 20)
    for given, predecessor, changes, word in (
        (card(same, same), None, {}, "no predecessor"),
        (card(same, same), "champion", {}, "no predecessor"),
        (card(same, same), "gone", {}, "was not scored"),
        (card(same, same, error="it does not load"), "before", {}, "was not scored"),
        (card(same, same, items_digest="other"), "before", {}, "was not scored"),
        (card(same, same), "before", {"primary": "bleu"}, "no values for bleu"),
        (card(same, same), "before", {"min_fresh_units": 21}, "20 units with fresh items"),
    ):
        found = rescore(given, predecessor, policy(**changes))
        assert isinstance(found, NotRescored)
        assert word in found.reason


@pytest.mark.parametrize("about", ["champion", "before"])
@pytest.mark.parametrize(
    ("parity", "required", "said"),
    [
        ("passed", True, True),
        ("not_needed", True, True),
        ("failed", True, False),
        ("failed", False, False),
        ("missing", True, False),
        ("missing", False, True),
    ],
)
def test_weights_that_are_not_proved_to_be_the_served_ones_say_nothing(
    about: str, parity: str, required: bool, said: bool
) -> None:
    same = {"champion": share(N, 20), "before": share(N, 20)}
    roles = {"champion": "champion", "before": "reference"}
    cards = [version(name, role, **({"parity": parity} if name == about else {})) for name, role in roles.items()]
    found = rescore(scorecard(same, versions=cards), "before", policy(require_parity=required))
    assert isinstance(found, Rescore) == said
    assert isinstance(found, Rescore) or (about in found.reason and parity in found.reason)
