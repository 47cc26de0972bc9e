"""The spool by itself: whole or not there, in order, bounded, and a lot that landed twice counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.gateway.spool import Spool
from feedback.events import Interaction, Message
from feedback.store import Store, land_interactions
from infra.database import begin_write, connect, create_tables, now
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
