"""What must hold for every scorecard, not only for the ones we thought of."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.gate.decide import decide
from evaluation.gate.policy import Guard
from evaluation.scorecard import Scorecard, Table
from tests.evaluation.cards import policy, scorecard, version

RANK = {"reject": 0, "inconclusive": 1, "promote": 2}
RULES = policy(min_units=4, min_fresh_units=2, min_slice_units=3, guards=(Guard(metric="guard", margin=0.3),))


@st.composite
def nights(draw: st.DrawFn) -> Scorecard:
    """Two challengers on 8 to 40 items in groups of one to three, with a guard, two slices and used items."""
    count = draw(st.integers(8, 40))
    size = draw(st.integers(1, 3))

    def answers(share: float) -> list[float]:
        return [float(value < share) for value in draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))]

    shares = [draw(st.sampled_from([0.1, 0.3, 0.6, 0.95])) for _ in range(3)]
    names = ("champion", "a", "b")
    return scorecard(
        {name: answers(p) for name, p in zip(names, shares, strict=True)},
        groups=[f"g{i // size:03d}" for i in range(count)],
        slices=[{"task": "xy"[(i // size) % 2]} for i in range(count)],
        uses=[i % 3 for i in range(count)],
        guard={name: answers(0.9) for name in names},
    )


@settings(max_examples=60, deadline=None)
@given(nights(), st.randoms(use_true_random=False))
def test_the_order_of_challengers_and_the_names_of_groups_change_nothing(card: Scorecard, random: object) -> None:
    shuffled = list(card.versions)
    getattr(random, "shuffle")(shuffled)  # noqa: B009
    scores = {m: dict(reversed(list(v.items()))) for m, v in reversed(list(card.gate.scores.items()))}
    other = card.model_copy(update={"versions": tuple(shuffled), "gate": Table(items=card.gate.items, scores=scores)})
    one, two = decide(card, RULES), decide(other, RULES)
    assert one.challengers == two.challengers
    assert (one.decision, one.winner) == (two.decision, two.winner)


@settings(max_examples=60, deadline=None)
@given(nights(), st.randoms(use_true_random=False))
def test_the_order_of_items_within_a_group_changes_nothing(card: Scorecard, random: object) -> None:
    """Items are stored by id, so another order means other ids for the same questions of a group."""
    order = list(range(len(card.gate.items)))
    getattr(random, "shuffle")(order)  # noqa: B009
    order.sort(key=lambda i: card.gate.items[i].group)  # stable: only the order within a group is random
    items = tuple(card.gate.items[old].model_copy(update={"item_id": f"i{new:04d}"}) for new, old in enumerate(order))
    scores = {m: {v: tuple(x[i] for i in order) for v, x in by.items()} for m, by in card.gate.scores.items()}
    other = card.model_copy(update={"gate": Table(items=items, scores=scores)})
    assert decide(card, RULES).challengers == decide(other, RULES).challengers


def turned(values: Sequence[float | None], index: int) -> tuple[float | None, ...]:
    return tuple(1.0 if i == index else value for i, value in enumerate(values))


@settings(max_examples=120, deadline=None)
@given(nights(), st.data())
def test_turning_a_loss_into_a_win_never_worsens_a_verdict(card: Scorecard, data: st.DataObject) -> None:
    metric = data.draw(st.sampled_from(["primary", "guard"]))
    lost = [i for i, value in enumerate(card.gate.scores[metric]["a"]) if value == 0.0]
    if not lost:
        return
    index = data.draw(st.sampled_from(lost))
    scores = {name: dict(values) for name, values in card.gate.scores.items()}
    scores[metric]["a"] = turned(scores[metric]["a"], index)
    better = card.model_copy(update={"gate": Table(items=card.gate.items, scores=scores)})
    before, after = decide(card, RULES).challengers[0], decide(better, RULES).challengers[0]
    assert before.version == after.version == "a"
    assert RANK[after.decision] >= RANK[before.decision]


@settings(max_examples=40, deadline=None)
@given(nights(), st.sampled_from(["missing", "error", "other items"]))
def test_nothing_is_promoted_without_a_scored_champion(card: Scorecard, fault: str) -> None:
    others = tuple(c for c in card.versions if c.version != "champion")
    if fault != "missing":
        changes = {"error": "it does not load"} if fault == "error" else {"items_digest": "other"}
        others = (*others, version("champion", "champion", **changes))
    verdict = decide(card.model_copy(update={"versions": others}), RULES)
    assert verdict.decision == "inconclusive"
    assert verdict.winner is None
