"""Capture while the database is odd: held up, frozen, of other tables, or against one row of a lot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.capture.spool import Spool
from feedback.events import Interaction, Message
from feedback.store.store import Store
from infra.database.connect import connect, now
from infra.database.errors import is_of_other_tables
from infra.database.schema import create_tables
from infra.database.timeouts import serving
from tests.postgres import Postgres

SECONDS = 0.5


def interaction(name: str) -> Interaction:
    message = Message(role="user", content="hello")
    return Interaction(interaction_id=name, tenant="t", version="v", messages=(message,), answer="a", created_at=now())


def captured(engine: Engine, spool: Spool, test: Callable[[CaptureQueue], Awaitable[None]]) -> None:
    """Do `test` with a capture that works."""

    async def run() -> None:
        capture = CaptureQueue(engine, spool, seconds=SECONDS)
        capture.start()
        await test(capture)
        await capture.stop()

    asyncio.run(run())


async def landed(capture: CaptureQueue) -> None:
    for _ in range(400):
        if not capture.spooled and capture.away is None:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it does not land from the spool")


def stored(engine: Engine) -> list[str]:
    return [one.interaction_id for _, one in Store(engine).interactions_after(0, 100)]


async def kept_in(capture: CaptureQueue, name: str) -> float:
    began = time.monotonic()
    await asyncio.wait_for(capture.keep(interaction(name)), 15)
    return time.monotonic() - began


def test_a_writer_that_is_stuck_costs_one_answer_a_moment_and_nothing_is_lost(
    postgres_url: str, tmp_path: Path
) -> None:
    # Even a connection that would wait for half an hour: the answer does not.
    engine, other = connect(postgres_url), connect(postgres_url)
    create_tables(engine)

    async def test(capture: CaptureQueue) -> None:
        with other.connect() as held, held.begin():
            held.execute(text("SELECT pg_advisory_xact_lock(7203641)"))
            assert await kept_in(capture, "first") < SECONDS + 3
            for number in range(3):  # nobody else waits at all
                assert await kept_in(capture, f"then-{number}") < SECONDS
            assert capture.spooled == 4
        await landed(capture)

    captured(engine, Spool(tmp_path / "spool", 10_000_000), test)
    assert sorted(stored(engine)) == ["first", "then-0", "then-1", "then-2"], "each once, the late commit included"
    for each in (engine, other):
        each.dispose()


def test_a_frozen_server_costs_one_answer_a_moment_and_its_connection_is_given_up(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    engine = connect(postgres_server.new_database(), serving(0.5))
    create_tables(engine)

    async def test(capture: CaptureQueue) -> None:
        await capture.keep(interaction("before"))
        with postgres_server.frozen():
            assert await kept_in(capture, "first") < SECONDS + 3
            assert await kept_in(capture, "second") < SECONDS
            began = time.monotonic()
            with pytest.raises(OperationalError):
                await asyncio.to_thread(stored, engine)
            assert time.monotonic() - began < 10, "whoever asks a frozen server gets an error, not silence"
        await landed(capture)

    captured(engine, Spool(tmp_path / "spool", 10_000_000), test)
    assert sorted(stored(engine)) == ["before", "first", "second"]
    engine.dispose()


def test_connections_keep_to_their_limits_and_to_what_their_url_says(postgres_url: str) -> None:
    short = connect(postgres_url, serving(2))
    own = connect(postgres_url + "?options=-c%20lock_timeout%3D7s", serving(2))
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    with short.connect() as connection:
        assert [connection.scalar(text(f"SHOW {name}")) for name in names] == ["2s", "2s", "20s"]
    with own.connect() as connection:
        assert [connection.scalar(text(f"SHOW {name}")) for name in names] == ["7s", "2s", "20s"]
    with connect(postgres_url).connect() as connection:
        assert connection.scalar(text("SHOW lock_timeout")) == "30min"


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_missing_column_is_no_outage(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'db'}" if database == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(url)
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE interactions DROP COLUMN probability"))
    spool = Spool(tmp_path / "spool", 10_000_000)

    async def test(capture: CaptureQueue) -> None:
        for name in ("1", "2"):
            with pytest.raises(Exception, match="probability") as refused:
                await capture.keep(interaction(name))
            assert is_of_other_tables(refused.value)
        assert capture.away is None

    captured(engine, spool, test)
    assert spool.waiting == 0, "nothing that cannot land is acknowledged"
    engine.dispose()


def test_a_row_that_the_database_refuses_fails_alone_and_lets_the_spool_land(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    create_tables(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER odd BEFORE INSERT ON interactions WHEN NEW.interaction_id LIKE 'odd%' "
                "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
            )
        )
    spool = Spool(tmp_path / "spool", 10_000_000)
    spool.put([interaction("spooled-1"), interaction("odd-spooled"), interaction("spooled-2")])

    async def test(capture: CaptureQueue) -> None:
        names = ["1", "odd", "2", "3"]
        results = await asyncio.gather(*(capture.keep(interaction(name)) for name in names), return_exceptions=True)
        assert [isinstance(result, IntegrityError) for result in results] == [False, True, False, False]
        await landed(capture)

    captured(engine, spool, test)
    assert sorted(stored(engine)) == ["1", "2", "3", "spooled-1", "spooled-2"]
    [aside] = (tmp_path / "spool").glob("*.unreadable")
    assert "odd-spooled" in aside.read_text()


def test_a_sqlite_database_that_is_locked_or_full_is_away(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db'}", serving(0.2))
    create_tables(engine)
    other = connect(f"sqlite:///{tmp_path / 'db'}")

    async def test(capture: CaptureQueue) -> None:
        with other.connect() as held:
            held.exec_driver_sql("COMMIT")
            held.exec_driver_sql("BEGIN IMMEDIATE")
            await capture.keep(interaction("locked"))
            assert capture.spooled == 1 and capture.away is not None
            held.exec_driver_sql("ROLLBACK")
            held.exec_driver_sql("BEGIN")
        await landed(capture)
        # The file may not grow any more: what a full disk says.
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        large = interaction("full").model_copy(update={"answer": "x" * 200_000})
        await capture.keep(large)
        assert capture.spooled == 1 and capture.away is not None

    captured(engine, Spool(tmp_path / "spool", 10_000_000), test)
    assert stored(connect(f"sqlite:///{tmp_path / 'db'}")) == ["locked"]


def test_a_capture_that_has_ended_keeps_nobody_waiting(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    create_tables(engine)

    async def run() -> None:
        capture = CaptureQueue(engine, Spool(tmp_path / "spool", 10_000_000), seconds=SECONDS)
        capture.start()
        await capture.keep(interaction("1"))
        capture._background._tasks["storing interactions"].cancel()
        await asyncio.sleep(0.05)
        assert list(capture.ended) == ["storing interactions"]
        with pytest.raises(Exception, match="start it again"):
            await asyncio.wait_for(capture.keep(interaction("2")), 5)
        await capture.stop()

    asyncio.run(run())
