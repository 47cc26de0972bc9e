"""Routing is a pure function of the ledger's standing."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.gateway.routing.assign import RoutingTable, assign, keep, routing_table
from deploy.ledger.state import Entry, ReleaseState
from deploy.ledger.transitions import release_state


def _standing(*lines: dict[str, Any]) -> ReleaseState:
    return release_state(
        Entry.model_validate({"tenant": "t", "seq": 10 + n, "actor": "a", "reason": "r", **line})
        for n, line in enumerate(lines)
    )


BASELINE = {"action": "baseline", "version": "base-1"}
GATED = {"action": "gated", "version": "v1"}
CANARY = {"action": "canary", "version": "v1", "share": 0.2, "previous": "base-1"}
STEP = {**CANARY, "share": 0.5}
CHAMPION = {"action": "champion", "version": "v1", "previous": "base-1", "share": 0.1}
UNITS = [f"u-{number}" for number in range(1500)]


def _table(*lines: dict[str, Any], lease: bool = True) -> RoutingTable:
    return routing_table(_standing(*lines), base="base-1", lease_valid=lease)


def test_without_a_ledger_the_base_answers() -> None:
    table = routing_table(ReleaseState(tenant="t"), base="base-1", lease_valid=True)
    assert assign(table, "u").model_dump() == {
        "version": "base-1", "arm": "champion", "probability": 1.0, "release_seq": 0
    }  # fmt: skip


def test_canary_gets_its_share_and_says_with_what_chance() -> None:
    table = _table(BASELINE, GATED, CANARY)
    dealt = [assign(table, unit) for unit in UNITS]
    treated = [each for each in dealt if each.arm == "canary"]
    assert len(treated) / len(UNITS) == pytest.approx(0.2, abs=0.05)
    assert {(each.version, each.probability, each.release_seq) for each in treated} == {("v1", 0.2, 12)}
    assert {(each.version, each.arm, each.probability) for each in dealt if each not in treated} == {
        ("base-1", "champion", 0.8)
    }
    assert dealt == [assign(table, unit) for unit in UNITS]


def test_a_step_up_never_takes_the_canary_from_anybody() -> None:
    before, after = _table(BASELINE, GATED, CANARY), _table(BASELINE, GATED, CANARY, STEP)
    assert after.stepped
    assert not before.stepped
    for unit in UNITS[:500]:
        if assign(before, unit).arm == "canary":
            assert assign(after, unit).arm == "canary"
    kept = keep(after, "champion", 0.8)
    assert kept is not None
    assert (kept.version, kept.probability, kept.release_seq) == ("base-1", 0.8, 12)


def test_another_release_deals_anew() -> None:
    first = _table(BASELINE, GATED, CANARY)
    second = _table(BASELINE, {"action": "held", "version": "v0"}, GATED, CANARY)
    assert first.hash_seed != second.hash_seed
    both = [(assign(first, unit).arm, assign(second, unit).arm) for unit in UNITS]
    assert both.count(("canary", "canary")) / len(UNITS) == pytest.approx(0.04, abs=0.025)


def test_holdback_keeps_a_few_on_the_previous_champion() -> None:
    table = _table(BASELINE, GATED, CANARY, CHAMPION)
    dealt = [assign(table, unit) for unit in UNITS]
    held = [each for each in dealt if each.arm == "holdback"]
    assert len(held) / len(UNITS) == pytest.approx(0.1, abs=0.04)
    assert {each.version for each in held} == {"base-1"}
    assert {(each.arm, each.version) for each in dealt if each not in held} == {("champion", "v1")}
    assert keep(table, "canary", 0.2) is None, "promotion deals everybody by the holdback's share"


def test_without_a_lease_everyone_gets_the_champion_and_no_release_is_charged() -> None:
    for lines, champion in (((BASELINE, GATED, CANARY), "base-1"), ((BASELINE, GATED, CANARY, CHAMPION), "v1")):
        table = _table(*lines, lease=False)
        assert table.lease_lost
        assert {(a.version, a.arm, a.probability, a.release_seq) for a in (assign(table, u) for u in UNITS[:50])} == {
            (champion, "champion", 1.0, 0)
        }
