"""Compare-and-set under real races, append-only, once a night."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, text, update
from sqlalchemy.exc import DatabaseError

from deploy.ledger.evidence import Evidence
from deploy.ledger.ledger import (
    Entry,
    RefusedTransition,
    append,
    current,
    history,
    last_seq,
    releases,
    tenants,
)
from deploy.ledger.transitions import release_state
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import Conflict

RACER = """
import sys
from deploy.ledger.ledger import Entry, append, current
from infra.database.connect import connect
from infra.errors import Conflict
engine, me, wins = connect(sys.argv[1]), sys.argv[2], 0
while True:
    before = current(engine, "t")
    if before.tenant_seq > 100:
        break
    try:
        append(engine, Entry(tenant="t", action="held", version="v", actor=me, reason="r"), before.seq)
        wins += 1
    except Conflict:
        pass
print(wins)
"""


def held(actor: str = "a", **evidence: str) -> Entry:
    return Entry(
        tenant="t", action="held", version="v", actor=actor, reason="r", evidence=Evidence.model_validate(evidence)
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def engine(url: str) -> Engine:
    engine = connect(url)
    create_tables(engine)
    append(engine, Entry(tenant="t", action="baseline", version="base", actor="up", reason="first"), 0)
    return engine


def test_lines_come_back_as_written_and_add_up(engine: Engine) -> None:
    line = append(engine, held(note="x"), current(engine, "t").seq)
    assert history(engine, "t")[-1] == line
    assert (line.tenant_seq, line.seq) == (2, 2)
    assert current(engine, "t") == release_state(history(engine, "t"))
    assert tenants(engine) == ["t"] and last_seq(engine) == last_seq(engine, "t") == 2
    assert history(engine, "t", after_seq=1) == [line]
    assert current(engine, "nobody").champion is None


def test_a_line_decided_on_an_old_standing_is_refused(engine: Engine) -> None:
    seq = current(engine, "t").seq
    append(engine, held("first"), seq)
    with pytest.raises(Conflict, match="decide anew"):
        append(engine, held("second"), seq)
    assert [e.actor for e in history(engine, "t")] == ["up", "first"]


def test_two_promoters_race_200_times_with_one_winner_each(engine: Engine) -> None:
    barrier = threading.Barrier(2)

    def race(me: str) -> list[bool]:
        won = []
        for _ in range(200):
            barrier.wait()
            seq = current(engine, "t").seq
            barrier.wait()
            try:
                append(engine, held(me), seq)
                won.append(True)
            except Conflict:
                won.append(False)
        return won

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(race, ["a", "b"])
    assert all(x != y for x, y in zip(first, second, strict=True))
    entries = history(engine, "t")
    assert [e.tenant_seq for e in entries] == list(range(1, 202))


def test_two_processes_race_and_the_history_has_no_gap(engine: Engine, url: str) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, url, me], stdout=subprocess.PIPE, text=True) for me in "ab"
    ]
    wins = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    entries = history(engine, "t")
    assert [e.tenant_seq for e in entries] == list(range(1, 102))
    assert [sum(e.actor == me for e in entries) for me in "ab"] == wins


def test_a_night_writes_its_line_once(engine: Engine) -> None:
    first = append(engine, held(night_id="n1"), current(engine, "t").seq)
    again = append(engine, held(night_id="n1"), 999)
    assert again == first and len(history(engine, "t")) == 2
    append(engine, held(night_id="n2"), first.seq)
    assert len(history(engine, "t")) == 3


def test_what_does_not_follow_is_never_written(engine: Engine) -> None:
    with pytest.raises(RefusedTransition):
        append(engine, Entry(tenant="t", action="champion", version="v1", actor="a", reason="r"), 1)
    with pytest.raises(ValueError, match="serialize"):
        append(engine, held().model_copy(update={"evidence": Evidence.model_validate({"x": object()})}), 1)
    assert len(history(engine, "t")) == 1


def test_tenants_do_not_wait_for_one_another(engine: Engine) -> None:
    append(engine, held(), 1)
    other = Entry(tenant="u", action="baseline", version="base", actor="up", reason="first")
    assert append(engine, other, 0).tenant_seq == 1
    assert current(engine, "t").tenant_seq == 2 and current(engine, "u").champion == "base"


@pytest.mark.parametrize("statement", [update(releases).values(actor="forged"), delete(releases)])
def test_the_database_refuses_to_rewrite_history(engine: Engine, statement: object) -> None:
    with engine.begin() as connection, pytest.raises(DatabaseError, match="append-only"):
        connection.execute(statement)  # type: ignore[call-overload]
    assert history(engine, "t")[0].actor == "up"


def test_postgres_refuses_to_empty_the_ledger_at_once(postgres_url: str) -> None:
    engine = connect(postgres_url)
    create_tables(engine)
    append(engine, Entry(tenant="t", action="baseline", version="base", actor="up", reason="first"), 0)
    with engine.begin() as connection, pytest.raises(DatabaseError, match="append-only"):
        connection.execute(text("TRUNCATE releases"))
    assert len(history(engine, "t")) == 1
