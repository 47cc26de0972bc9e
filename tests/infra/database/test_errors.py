"""A database's errors by their codes: away, of other tables, or about one row; real ones of real databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from infra.database.connect import connect
from infra.database.errors import in_short, is_away, is_of_other_tables, is_rows_own
from infra.database.timeouts import serving


def raised(work: Callable[[], object]) -> Exception:
    with pytest.raises(SQLAlchemyError) as caught:
        work()
    return caught.value


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def kind(error: Exception) -> str:
    kinds = {"away": is_away, "other tables": is_of_other_tables, "row": is_rows_own}
    return ", ".join(name for name, holds in kinds.items() if holds(error))


def test_sqlite(tmp_path: Path) -> None:
    engine, other = (connect(f"sqlite:///{tmp_path / 'db'}", serving(0.1)) for _ in range(2))
    run(engine, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    assert kind(raised(lambda: run(engine, "SELECT * FROM nowhere"))) == "other tables"
    assert kind(raised(lambda: run(engine, "INSERT INTO t (gone) VALUES (1)"))) == "other tables"
    assert kind(raised(lambda: run(engine, "INSERT INTO t (n) VALUES (NULL)"))) == "row"
    with other.begin() as held:
        held.execute(text("INSERT INTO t (n) VALUES (1)"))
        assert kind(raised(lambda: run(engine, "INSERT INTO t (n) VALUES (2)"))) == "away"
    folder = tmp_path / "a-folder"
    folder.mkdir()
    assert kind(raised(lambda: run(connect(f"sqlite:///{folder}"), "SELECT 1"))) == "away"
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"this is no database at all" * 100)
    assert kind(raised(lambda: run(connect(f"sqlite:///{damaged}"), "SELECT 1"))) == "", "no waiting mends it"


def test_postgres(postgres_url: str) -> None:
    engine, other = (connect(postgres_url, serving(0.2)) for _ in range(2))
    run(engine, "CREATE TABLE t (id INTEGER PRIMARY KEY, n VARCHAR(3) NOT NULL)")
    assert kind(raised(lambda: run(engine, "SELECT * FROM nowhere"))) == "other tables"
    assert kind(raised(lambda: run(engine, "INSERT INTO t (gone) VALUES (1)"))) == "other tables"
    assert kind(raised(lambda: run(engine, "INSERT INTO t VALUES (1, 'too long')"))) == "row"
    assert kind(raised(lambda: run(engine, "INSERT INTO t VALUES (1, NULL)"))) == "row"
    with other.begin() as held:
        held.execute(text("LOCK TABLE t"))
        assert kind(raised(lambda: run(engine, "INSERT INTO t VALUES (1, 'a')"))) == "away", "a lock"
    assert kind(raised(lambda: run(engine, "SELECT pg_sleep(5)"))) == "away", "too slow"
    read_only = raised(lambda: run(engine, "SET TRANSACTION READ ONLY", "INSERT INTO t VALUES (1, 'a')"))
    assert kind(read_only) == "away", "a standby"
    with engine.connect() as connection:
        number = connection.scalar(text("SELECT pg_backend_pid()"))
        run(other, f"SELECT pg_terminate_backend({number})")
        assert kind(raised(lambda: connection.execute(text("SELECT 1")))) == "away", "shut down"
    nobody = connect("postgresql+psycopg://x@127.0.0.1:9/x", serving(1))
    assert kind(raised(lambda: run(nobody, "SELECT 1"))) == "away", "not there"
    for each in (engine, other):
        each.dispose()


def test_what_is_said_of_an_error_holds_no_statement_and_no_parameters(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")

    def fail() -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO nowhere VALUES (:words)"), {"words": "what somebody said"})

    assert in_short(raised(fail)) == "no such table: nowhere"
    assert in_short(RuntimeError("")) == "RuntimeError"
