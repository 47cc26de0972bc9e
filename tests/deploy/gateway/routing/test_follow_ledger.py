"""Which table routes whom: a tenant's own from its first release on, before that the shared tenant's champion."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.routing.follow_ledger import RoutingTables, unwatched_alert
from deploy.ledger.ledger import Entry, append, current
from deploy.ledger.state import DRILL_TENANT
from deploy.release.lifecycle import start
from infra.alerts.outbox import enqueue, list_alerts
from infra.database.connect import begin_write, connect, now
from infra.database.schema import create_tables


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
    create_tables(engine)
    for tenant in ("shop", "bank", DRILL_TENANT):
        start(engine, tenant, "base-1")
    say(engine, "shop", "gated", "v-shop")
    say(engine, "shop", "canary", "v-shop", share=0.5, previous="base-1")
    say(engine, "shop", "champion", "v-shop", previous="base-1")
    return engine


def say(engine: Engine, tenant: str, action: str, version: str, **fields: object) -> Entry:
    values = {"tenant": tenant, "action": action, "version": version, "actor": "test", "reason": "test", **fields}
    return append(engine, Entry.model_validate(values), current(engine, tenant).seq)


def read(engine: Engine) -> RoutingTables:
    tables = RoutingTables(engine, ReplicaPool([]), shared="shop", base="base-1", poll_seconds=60.0)

    async def once() -> None:
        await tables.start()
        await tables.stop()

    asyncio.run(once())
    return tables


def test_a_tenant_with_a_baseline_only_is_answered_by_the_shared_champion(engine: Engine) -> None:
    say(engine, "bank", "held", "v-bank", evidence={"night_id": "n1"})
    tables = read(engine)
    table, shared = tables.of("bank"), tables.of("shop")
    assert (table.tenant, table.champion, table.champion_seq) == ("bank", "v-shop", shared.champion_seq)
    assert tables.of("nobody-knows").champion == "v-shop"
    assert tables.may_name("bank", "v-shop"), "it is what answers there"
    assert tables.of(DRILL_TENANT).champion == "base-1", "a drill waits for the base"


def test_from_its_first_release_on_a_tenants_own_ledger_counts_also_after_a_rollback(engine: Engine) -> None:
    say(engine, "bank", "gated", "v-bank")
    opened = say(engine, "bank", "canary", "v-bank", share=0.5, previous="base-1")
    assert read(engine).of("bank").seq == opened.seq
    say(engine, "bank", "rolled_back", "v-bank", previous="base-1")
    tables = read(engine)
    assert tables.of("bank").champion == "base-1"
    assert not tables.may_name("bank", "v-shop"), "another tenant's"


def test_a_tenant_that_took_over_the_shared_champion_goes_on_following_it(engine: Engine) -> None:
    say(engine, "bank", "inherited", "v-shop", previous="base-1")
    say(engine, "shop", "gated", "v-newer")
    say(engine, "shop", "canary", "v-newer", share=0.5, previous="v-shop")
    say(engine, "shop", "champion", "v-newer", previous="v-shop")
    assert read(engine).of("bank").champion == "v-newer"


def test_what_no_ledger_names_may_be_asked_for_by_the_shared_tenant_alone(engine: Engine) -> None:
    tables = read(engine)
    assert tables.may_name("shop", "v-unreleased")
    assert not tables.may_name("bank", "v-unreleased"), "it may have been trained on another tenant's data"


def test_a_lease_lost_again_in_the_same_step_is_told_again_but_once_an_hour(engine: Engine) -> None:
    first = now().replace(minute=5)
    for at in (first, first + timedelta(minutes=1), first + timedelta(hours=2)):
        with begin_write(engine) as connection:  # the second is another gateway that sees the same
            enqueue(connection, unwatched_alert("shop", "v-next", 7, at))
    assert [alert.kind for alert in list_alerts(engine)].count("canary_unwatched") == 2
