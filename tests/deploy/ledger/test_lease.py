"""Leases on the database's clock."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.ledger.lease import canary_lease, database_us, holder_of, lease_valid, release, renew, seconds_left
from infra.database.connect import connect
from infra.database.schema import create_tables


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'leases.db'}")
    create_tables(engine)
    return engine


def test_a_lease_runs_out_when_nobody_renews_it(engine: Engine) -> None:
    assert not lease_valid(engine, "t")
    assert renew(engine, canary_lease("t"), "a", 0.3)
    assert lease_valid(engine, "t") and 0 < seconds_left(engine, canary_lease("t")) <= 0.3
    time.sleep(0.4)
    assert not lease_valid(engine, "t") and seconds_left(engine, canary_lease("t")) == 0
    assert holder_of(engine, canary_lease("t")) is None


def test_renewing_prolongs_it(engine: Engine) -> None:
    renew(engine, "x", "a", 10)
    renew(engine, "x", "a", 60)
    assert seconds_left(engine, "x") > 50


def test_another_holder_waits_until_it_runs_out_or_is_given_back(engine: Engine) -> None:
    assert renew(engine, "x", "a", 0.2)
    assert not renew(engine, "x", "b", 10) and holder_of(engine, "x") == "a"
    time.sleep(0.25)
    assert renew(engine, "x", "b", 60)
    assert not renew(engine, "x", "a", 10)
    release(engine, "x", "a")  # not a's to give back
    assert holder_of(engine, "x") == "b"
    release(engine, "x", "b")
    assert renew(engine, "x", "a", 10)


def test_of_many_who_race_one_holds_it(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: renew(engine, "x", f"holder {n}", 60), range(8)))
    assert sum(won) == 1 and holder_of(engine, "x") == f"holder {won.index(True)}"


def test_the_clock_is_the_databases(engine: Engine) -> None:
    with engine.connect() as connection:
        assert abs(database_us(connection) / 1e6 - time.time()) < 5
