"""Of two choices of one pair made at once, one counts: as the pair's winner and as the preference that is learned."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from deploy.experiments.arena import Pair, Winner, arena_pairs, choose, record_pair
from feedback.events import Preference
from feedback.store.store import Store
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables
from tests.feedback.world import interaction


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_winner_and_preference_are_of_the_same_choice(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    postgres = database == "postgres"
    engine = connect(request.getfixturevalue("postgres_url") if postgres else f"sqlite:///{tmp_path / 'a.db'}")
    create_tables(engine)
    store, receipts = Store(engine), dict[tuple[int, Winner], Any]()
    for number in range(4):
        for side in "ab":
            store.record_interaction(interaction(f"{number}{side}", "which?", side))
        record_pair(
            engine,
            Pair(
                arena_id=f"p{number}",
                tenant="acme",
                first_id=f"i{number}a",
                second_id=f"i{number}b",
                first_version="v1",
                second_version="v2",
            ),
        )

        def say(winner: Winner, number: int = number) -> None:
            receipts[number, winner] = choose(engine, "acme", f"p{number}", winner, actor="bob")

        choices: tuple[Winner, Winner] = ("first", "tie") if number % 2 else ("second", "first")
        threads = [threading.Thread(target=say, args=(winner,)) for winner in choices]
        with begin_write(engine) as held:  # both have read the pair by then, and wait to write
            held.execute(arena_pairs.update().where(arena_pairs.c.arena_id == f"p{number}").values(winner=None))
            for thread in threads:
                thread.start()
            time.sleep(0.5)
        for thread in threads:
            thread.join()
    for number in range(4):
        with engine.connect() as connection:
            pairs = arena_pairs.c
            winner = connection.execute(select(pairs.winner).where(pairs.arena_id == f"p{number}")).scalar_one()
        learned = [e for side in "ab" for e in store.feedback_for("acme", f"i{number}{side}")]
        better = {"first": "a", "second": "b"}.get(winner)
        expected = [] if better is None else [Preference(chosen=better, rejected="b" if better == "a" else "a")]
        assert [event.value for event in learned] == expected
        told = [each.status if each else "tie" for (n, _), each in receipts.items() if n == number]
        assert sorted(told) == sorted(["duplicate", "tie" if winner == "tie" else "stored"])
