"""One tenant's odd ledger line is that tenant's trouble: routing, leases and readiness of the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.routing.follow_ledger import RoutingTables
from deploy.gateway.routing.ledger_view import LedgerView, refresh
from deploy.ledger.last_known import last_known
from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import Entry, append, current, history
from deploy.ledger.state import RefusedTransition
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect
from infra.database.schema import create_tables
from tests.deploy.odd_lines import put_odd_line

POLL = 0.05
ODD: dict[str, dict[str, Any]] = {
    "an action of a newer release": {"action": "frozen", "version": "v1"},
    "a line that does not follow": {"action": "champion", "version": "v9"},
    "a share that no release writes": {"action": "canary", "version": "v1", "share": 7.0},
    "evidence in another shape": {"action": "held", "version": "v1", "evidence": "[1]"},
    "evidence that is no JSON": {"action": "held", "version": "v1", "evidence": "{"},
    "a time that is none": {"action": "held", "version": "v1", "at": "noon"},
    "a pause until no time": {"action": "paused", "version": "v1", "evidence": '{"paused_until": "soon"}'},
}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
    create_tables(engine)
    for tenant in ("a", "b"):
        say(engine, tenant, "baseline", "base")
        say(engine, tenant, "gated", "v0")
        say(engine, tenant, "canary", "v0", share=0.5)
        say(engine, tenant, "champion", "v0")
        say(engine, tenant, "gated", "v1")
        say(engine, tenant, "canary", "v1", share=0.5)
        renew(engine, canary_lease(tenant), "controller", 60.0)
    return engine


def say(engine: Engine, tenant: str, action: str, version: str, **fields: object) -> Entry:
    values = {"tenant": tenant, "action": action, "version": version, "actor": "test", "reason": "test", **fields}
    return append(engine, Entry.model_validate(values), current(engine, tenant).seq)


def tables_of(engine: Engine) -> RoutingTables:
    return RoutingTables(engine, ReplicaPool([]), shared="a", base="base", poll_seconds=POLL)


def followed(engine: Engine, test: Callable[[RoutingTables], Awaitable[None]]) -> None:
    """Do `test` with tables that follow the ledger."""

    async def run() -> None:
        tables = tables_of(engine)
        await tables.start()
        try:
            await test(tables)
        finally:
            await tables.stop()

    asyncio.run(run())


async def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not come to this: {what}")


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_an_odd_line_closes_its_own_tenants_watch_and_every_other_tenant_is_followed(
    engine: Engine, line: dict[str, Any]
) -> None:
    async def test(tables: RoutingTables) -> None:
        assert {tables.of(tenant).challenger for tenant in "ab"} == {"v1"}
        put_odd_line(engine, "a", **line)
        await until(lambda: tables.of("a").challenger is None, "a's watch is closed")
        assert tables.of("a").champion == "v0", "the last known champion"
        assert tables.of("b").challenger == "v1", "b's canary goes on"
        say(engine, "b", "rolled_back", "v1", previous="v0")
        await until(lambda: tables.of("b").challenger is None, "b's rollback of a canary is seen")
        say(engine, "b", "rolled_back", "v0", previous="base")
        await until(lambda: tables.of("b").champion == "base", "b's rollback of a champion is seen")
        assert set(tables.unread) == {"a"} and tables.failing is None and not tables.ended
        await until(lambda: any(alert.kind == "ledger_unread" for alert in list_alerts(engine)), "people are told")

    followed(engine, test)
    [alert] = [alert for alert in list_alerts(engine) if alert.kind == "ledger_unread"]
    assert alert.tenant == "a" and "line" in alert.text


def test_a_gateway_that_starts_after_the_odd_line_knows_the_champion_too(engine: Engine) -> None:
    for line in ODD.values():
        put_odd_line(engine, "a", **line)
    view = refresh(engine, LedgerView())
    assert (view.states["a"].champion, view.states["a"].watch) == ("v0", None)
    assert view.states["b"].watch is not None and view.states["b"].unread is None


def test_what_cannot_be_followed_can_be_read_and_nobody_decides_on_it(engine: Engine) -> None:
    put_odd_line(engine, "a", "frozen", "v1")
    assert [line.action for line in history(engine, "a")][-1] == "frozen"
    with pytest.raises(RefusedTransition, match="does not know"):
        current(engine, "a")
    put_odd_line(engine, "a", "held", "v1", evidence="{")
    assert [line.action for line in history(engine, "a")][-2:] == ["frozen", "unreadable"]
    with pytest.raises(RefusedTransition, match="no action of the ledger"):
        append(engine, Entry(tenant="c", action="frozen", version="v", actor="x", reason="r"), 0)


def test_a_version_that_is_taken_back_after_the_odd_line_answers_nobody(engine: Engine) -> None:
    put_odd_line(engine, "a", "frozen", "v1")
    put_odd_line(engine, "a", "rolled_back", "v0", previous="v-that-no-line-names")
    known = last_known(history(engine, "a"), tenant="a")
    assert known.champion == "base" and "v0" in known.barred and known.watch is None


def test_an_unknown_action_is_no_release_of_a_tenant_that_has_none(engine: Engine) -> None:
    say(engine, "c", "baseline", "base")
    put_odd_line(engine, "c", "frozen", "base")

    async def test(tables: RoutingTables) -> None:
        assert tables.of("c").champion == tables.of("a").champion == "v0"

    followed(engine, test)


def test_a_lease_runs_out_while_the_ledger_cannot_be_read(engine: Engine) -> None:
    for tenant in ("a", "b"):
        assert renew(engine, canary_lease(tenant), "controller", 1.0)

    async def test(tables: RoutingTables) -> None:
        assert tables.of("b").challenger == "v1"
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE releases RENAME TO gone"))
        await until(lambda: tables.failing is not None, "reading fails")
        await until(lambda: tables.of("b").challenger is None, "the lease runs out")
        assert tables.of("b").lease_lost and tables.age_seconds > 0.2
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE gone RENAME TO releases"))
        assert renew(engine, canary_lease("b"), "controller", 60.0)
        await until(lambda: tables.of("b").challenger == "v1", "and routing is followed again")
        assert tables.age_seconds < 5

    followed(engine, test)


def test_one_spoilt_lease_ends_no_other_tenants_watch(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE leases SET expires_us = 'never' WHERE name = 'canary/a'"))

    async def test(tables: RoutingTables) -> None:
        assert tables.of("a").lease_lost
        assert tables.of("b").challenger == "v1"

    followed(engine, test)


def test_a_task_that_ends_is_never_silent(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async def test(tables: RoutingTables) -> None:
        assert tables._task is not None
        tables._task.cancel()
        await until(lambda: bool(tables.ended), "it is noticed")
        assert "following the ledger has ended" in caplog.text

    followed(engine, test)
