"""The spool by itself: whole or not there, in order, bounded, and a lot that landed twice counts once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.capture.spool import Spool
from feedback.events import Interaction, Message
from feedback.store.store import Store, land_interactions
from infra.database.connect import begin_write, connect, now
from infra.database.schema import create_tables
from infra.errors import Unavailable


def interaction(name: str) -> Interaction:
    return Interaction(
        interaction_id=name,
        tenant="t",
        version="v",
        messages=(Message(role="user", content="é\u2028\n"),),
        created_at=now(),
    )


def test_lots_land_in_order_once_and_a_kill_before_removal_changes_nothing(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db'}")
    create_tables(engine)
    spool = Spool(tmp_path / "spool", 1_000_000)
    spool.put([interaction("1"), interaction("2")])
    spool.put([interaction("3")])
    (tmp_path / "spool" / "00000000T.jsonl").write_text('{"torn": ')
    assert spool.waiting == 3

    def commit(lot: list[Interaction]) -> None:
        with begin_write(engine) as connection:
            land_interactions(connection, lot)

    first = sorted((tmp_path / "spool").glob("2*.jsonl"))[0]
    kept = first.read_bytes()
    assert Spool(tmp_path / "spool", 1).land(commit) == 3
    first.write_bytes(kept)  # landed, and killed before it was removed
    assert spool.land(commit) == 2 and spool.waiting == 0
    assert [i.interaction_id for _, i in Store(engine).interactions_after(0, 10)] == ["1", "2", "3"]
    assert (tmp_path / "spool" / "00000000T.unreadable").exists()


def test_a_full_spool_and_a_failing_commit_lose_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 700)
    spool.put([interaction("1")])
    with pytest.raises(Unavailable, match="spool_max_bytes"):
        spool.put([interaction("2"), interaction("3")])

    def refuse(lot: list[Interaction]) -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        spool.land(refuse)
    assert spool.waiting == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_refusal_of_the_database_puts_nothing_that_was_said_into_the_log(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the statement's parameters nor the row that Postgres shows with a broken constraint."""
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else f"sqlite:///{tmp_path / 'db'}"
    engine = connect(url)
    create_tables(engine)
    refuse = (
        "ALTER TABLE interactions ADD CONSTRAINT refused CHECK (interaction_id = 'never')"
        if kind == "postgres"
        else "CREATE TRIGGER refused BEFORE INSERT ON interactions BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(refuse)
    said = "my test of Tuesday was positive"
    told = interaction("secret-of-its-own").model_copy(update={"messages": (Message(role="user", content=said),)})
    spool = Spool(tmp_path / "spool", 1_000_000)

    async def keep() -> None:
        capture = CaptureQueue(engine, spool)
        capture.start()
        with pytest.raises(IntegrityError) as caught:
            await capture.keep(told)
        assert said not in str(caught.value)
        spool.put([told])
        await asyncio.sleep(1.2)  # it tries to land that too
        await capture.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(keep())
    assert "refused by the database" in caplog.text and "set aside" in caplog.text and "refused" in caplog.text
    assert "Tuesday" not in caplog.text and told.interaction_id not in caplog.text


def test_a_lot_that_cannot_be_read_is_not_told_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "spool", 1_000_000)
    (tmp_path / "spool").mkdir()
    line = interaction("1").model_dump_json().replace('"version"', '"my illness"')
    (tmp_path / "spool" / "0.jsonl").write_text(line + "\n")
    assert spool.land(lambda lot: None) == 0
    assert "is set aside" in caplog.text and "illness" not in caplog.text
