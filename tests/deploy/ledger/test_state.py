"""The lines a ledger may hold, and what they add up to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.ledger.state import Action, Entry, RefusedTransition, ReleaseState
from deploy.ledger.transitions import apply, release_state

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def build(*lines: tuple[Action, str] | tuple[Action, str, dict[str, Any]]) -> list[Entry]:
    entries = []
    for number, line in enumerate(lines, start=1):
        action, version = line[0], line[1]
        extra: dict[str, Any] = line[2] if len(line) == 3 else {}
        entries.append(
            Entry(
                seq=number * 10,
                tenant="t",
                tenant_seq=number,
                action=action,
                version=version,
                actor="test",
                reason="because",
                at=T0 + timedelta(minutes=number),
                **extra,
            )
        )
    return entries


BASE: tuple[Action, str] = ("baseline", "base")
GATED: tuple[Action, str] = ("gated", "v1")
CANARY: tuple[Action, str, dict[str, Any]] = ("canary", "v1", {"share": 0.1})
CHAMPION: tuple[Action, str, dict[str, Any]] = ("champion", "v1", {"previous": "base", "share": 0.05})


def test_nothing_stands_before_the_first_line() -> None:
    empty = release_state([], tenant="t")
    assert empty == ReleaseState(tenant="t")
    assert empty.seq == 0 and empty.champion is None and empty.pinned == frozenset()


def test_a_release_goes_gated_canary_champion_superseded() -> None:
    gated = release_state(build(BASE, GATED))
    assert (gated.champion, gated.gated, gated.canary, gated.release_seq) == ("base", "v1", None, 10)

    canary = release_state(build(BASE, GATED, CANARY))
    assert (canary.champion, canary.canary, canary.canary_share, canary.release_seq) == ("base", "v1", 0.1, 30)
    assert canary.gated is None and canary.holdback is None

    stepped = release_state(build(BASE, GATED, CANARY, ("canary", "v1", {"share": 0.5})))
    assert stepped.watch is not None
    assert (stepped.canary_share, stepped.watch.step, stepped.watch.opened_seq) == (0.5, 1, 30)
    assert stepped.watch.shares == ((30, 0.1), (40, 0.5))
    assert stepped.release_seq == 30  # the salt stays: nobody changes arms at a step

    promoted = release_state(build(BASE, GATED, CANARY, CHAMPION))
    assert (promoted.champion, promoted.previous, promoted.holdback) == ("v1", "base", "base")
    assert promoted.holdback_share == pytest.approx(0.05)
    assert promoted.canary is None and promoted.canary_share == 0.0 and promoted.release_seq == 40
    assert promoted.since == T0 + timedelta(minutes=4)

    over = release_state(build(BASE, GATED, CANARY, CHAMPION, ("superseded", "base")))
    assert (over.champion, over.previous, over.watch, over.release_seq) == ("v1", "base", None, 40)
    assert over.pinned == {"v1", "base"}


def test_no_holdback_closes_the_watch_at_promotion() -> None:
    done = release_state(build(BASE, GATED, CANARY, ("champion", "v1", {"previous": "base", "share": 0.0})))
    assert done.champion == "v1" and done.watch is None


def test_rolling_back_a_canary_bars_it_and_pauses() -> None:
    until = (T0 + timedelta(days=1)).isoformat()
    back = release_state(
        build(BASE, GATED, CANARY, ("rolled_back", "v1", {"previous": "base", "evidence": {"paused_until": until}}))
    )
    assert (back.champion, back.watch, dict(back.barred)) == ("base", None, {"v1": "because"})
    assert back.paused_at(T0) and not back.paused_at(T0 + timedelta(days=2))
    assert back.champion_seq == 10  # the champion never moved


def test_rolling_back_champions_walks_back_and_never_to_a_barred_one() -> None:
    lines = build(
        BASE,
        GATED,
        CANARY,
        ("champion", "v1", {"previous": "base"}),
        ("gated", "v2"),
        ("canary", "v2", {"share": 0.5}),
        ("champion", "v2", {"previous": "v1"}),
    )
    live = release_state(lines)
    assert live.fallback() == "v1"
    more = build(*[(e.action, e.version, {"previous": e.previous, "share": e.share}) for e in lines])  # type: ignore[arg-type]  # an action may be another release's
    after = apply(
        live, more[0].model_copy(update={"seq": 80, "action": "rolled_back", "version": "v2", "previous": "v1"})
    )
    assert (after.champion, after.previous, after.fallback()) == ("v1", "base", "base")
    last = apply(
        after, more[0].model_copy(update={"seq": 90, "action": "rolled_back", "version": "v1", "previous": "base"})
    )
    assert (last.champion, last.previous, set(last.barred)) == ("base", None, {"v1", "v2"})
    assert last.fallback() == "base"

    barred_behind = apply(live, more[0].model_copy(update={"seq": 80, "action": "barred", "version": "v1"}))
    assert barred_behind.fallback() == "base"
    with pytest.raises(RefusedTransition, match="cannot go back to v1"):
        apply(
            barred_behind,
            more[0].model_copy(update={"seq": 90, "action": "rolled_back", "version": "v2", "previous": "v1"}),
        )


def test_bars_are_lifted_by_a_line_and_by_nothing_else() -> None:
    lines: list[Any] = [BASE, ("barred", "v1")]
    with pytest.raises(RefusedTransition, match="lift the bar"):
        release_state(build(*lines, GATED))
    assert release_state(build(*lines, ("unbarred", "v1"), GATED)).gated == "v1"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GATED], "write its baseline first"),
        ([BASE, ("baseline", "other")], "is champion already"),
        ([BASE, ("gated", "base")], "champion's own"),
        ([BASE, CANARY], "gate it first"),
        ([BASE, GATED, ("champion", "v1")], "only from a canary"),
        ([BASE, GATED, CANARY, ("gated", "v2")], "one watch at a time"),
        ([BASE, GATED, CANARY, ("canary", "v1", {"share": 0.1})], "steps go up"),
        ([BASE, GATED, ("canary", "v1", {"share": 1.0})], "both arms need units"),
        ([BASE, GATED, CANARY, ("barred", "v1")], "roll it back"),
        ([BASE, GATED, CANARY, ("rolled_back", "v1", {"previous": "v0"})], "goes back to the champion"),
        ([BASE, ("rolled_back", "v1", {"previous": "base"})], "not live"),
        ([BASE, ("rolled_back", "base", {"previous": "v1"})], "last resort"),
        ([BASE, ("barred", "base")], "last resort"),
        ([BASE, GATED, CANARY, ("superseded", "base")], "not held back"),
        ([BASE, ("withdrawn", "v1")], "neither gated nor"),
        ([BASE, ("resumed", "base")], "not paused"),
        ([BASE, ("unbarred", "v1")], "not barred"),
    ],
)
def test_lines_that_do_not_follow_are_refused(lines: list[Any], message: str) -> None:
    with pytest.raises(RefusedTransition, match=message):
        release_state(build(*lines))


def test_a_held_night_changes_nothing_but_the_place() -> None:
    before, after = release_state(build(BASE, GATED, CANARY)), release_state(build(BASE, GATED, CANARY, ("held", "v9")))
    assert after.model_copy(update={"seq": before.seq, "tenant_seq": before.tenant_seq}) == before


def test_withdrawing_bars_nothing() -> None:
    gone = release_state(build(BASE, GATED, CANARY, ("withdrawn", "v1")))
    assert gone.champion == "base" and gone.watch is None and not gone.barred and not gone.paused
