"""The SQL store's ground: time columns, write locks, table creation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update

from infra.database.connect import UtcDateTime, begin_write, connect
from infra.errors import UserError

tables = MetaData()
moments = Table("moments", tables, Column("id", Integer, primary_key=True), Column("at", UtcDateTime))
counters = Table("counters", tables, Column("id", Integer, primary_key=True), Column("n", Integer))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_times_come_back_equal_and_in_utc(url: str) -> None:
    engine = connect(url)
    tables.create_all(engine)
    at = datetime(2026, 3, 1, 12, 30, 1, 999_999, tzinfo=timezone(timedelta(hours=5)))
    with begin_write(engine) as connection:
        connection.execute(insert(moments).values(id=1, at=at))
    with engine.connect() as connection:
        back = connection.execute(select(moments.c.at)).scalar_one()
    assert back == at and back.tzinfo is UTC


def test_concurrent_read_modify_write_loses_nothing(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'a.db'}")
    tables.create_all(engine)
    with begin_write(engine) as connection:
        connection.execute(insert(counters).values(id=1, n=0))

    def add(_: int) -> None:
        with begin_write(engine) as connection:
            n = connection.execute(select(counters.c.n)).scalar_one()
            connection.execute(update(counters).values(n=n + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    with engine.connect() as connection:
        assert connection.execute(select(counters.c.n)).scalar_one() == 80


def test_a_bad_url_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="SQLAlchemy URL"):
        connect("not a url")


def test_a_url_may_be_named_by_the_variable_that_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.settings import Places

    monkeypatch.setenv("RATCHET_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere.db'}")
    places = Places(home=tmp_path)
    assert places.database == "env:RATCHET_DATABASE_URL"
    with connect(places.database).connect():
        pass
    assert (tmp_path / "elsewhere.db").exists()
    assert Places(home=tmp_path, database_url="sqlite:///x.db").database == "sqlite:///x.db"
    monkeypatch.delenv("RATCHET_DATABASE_URL")
    with pytest.raises(UserError, match="RATCHET_DATABASE_URL is not set"):
        connect("env:RATCHET_DATABASE_URL")
