"""What was merged into an example is taken in again when that example goes: once, whoever is killed meanwhile."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from feedback.abuse.config import AbuseConfig
from feedback.events import Thumb
from feedback.examples import Example
from feedback.index.ingest_index import IngestIndex
from feedback.ingest import run
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Lake
from feedback.store.store import Store, feedback_ready
from tests.feedback.world import FAST, START, feedback_on, interaction, make_lake, make_store, put

PROMPT, ANSWER = "What is the capital city of Peru in America?", "It is Lima, of course."


def desk(folder: Path, *, copies: int = 2, actor: str | None = None) -> tuple[Store, Lake]:
    """People who got the same answer to the same question and like it: the first one's example stands for all."""
    store, lake = make_store(folder), make_lake(folder)
    asked = [interaction(n, PROMPT, ANSWER) for n in range(copies)]
    put(store, asked, [feedback_on(n, Thumb(up=True), actor or f"p{n}") for n in range(copies)])
    run_ingest(store, lake, (), FAST)
    return store, lake


def change_of_mind(store: Store, number: int = 0) -> None:
    later = START + timedelta(hours=1)
    store.record_feedback(
        feedback_on(number, Thumb(up=False), f"p{number}", event_id=f"later{number}", created_at=later)
    )


def says(examples: list[Example]) -> set[tuple[str, str, bool | None]]:
    return {(e.subject, e.shape, e.good) for e in examples}


def turns(store: Store) -> int:
    with store.database.connect() as connection:
        return connection.execute(select(func.count()).select_from(feedback_ready)).scalar_one()


def fates(lake: Lake) -> dict[str, tuple[str, list[str]]]:
    rows = lake.scan("fates")
    assert rows is not None
    latest = rows.collect().sort("batch")
    return {r["event_id"]: (r["status"], r["examples"]) for r in latest.iter_rows(named=True)}


def test_what_was_merged_into_an_example_that_went_is_accepted_anew(tmp_path: Path) -> None:
    store, lake = desk(tmp_path)
    assert says(lake.examples()) == {("i0", "completion", None), ("i0", "rated", True)}
    change_of_mind(store)
    report = run_ingest(store, lake, (), FAST)
    assert says(lake.examples()) == {("i0", "rated", False), ("i1", "completion", None), ("i1", "rated", True)}
    assert report.counts["fates"] == {"accepted": 1} and len(report.batches) == 2
    assert report.counts["revisited"] == {"accepted": 1, "merged": 1}  # the word with another turn; the thumb before
    standing = {e.example_id for e in lake.examples()}
    assert all(standing.issuperset(examples) for _, examples in fates(lake).values())
    before = turns(store)
    assert run_ingest(store, lake, (), FAST).batches == () and turns(store) == before == 4


def test_of_many_one_stands_for_the_others_again_and_again(tmp_path: Path) -> None:
    store, lake = desk(tmp_path, copies=5)
    for number in range(3):
        change_of_mind(store, number)
        run_ingest(store, lake, (), FAST)
        assert (f"i{number + 1}", "completion", None) in says(lake.examples())
    assert Counter(e.shape for e in lake.examples()) == {"completion": 1, "rated": 2}  # the bad ones are one too
    assert run_ingest(store, lake, (), FAST).batches == ()


def test_what_is_made_again_keeps_what_was_merged_into_it(tmp_path: Path) -> None:
    store, lake = desk(tmp_path)
    before = turns(store)
    store.record_feedback(feedback_on(0, Thumb(up=True), "another"))
    assert run_ingest(store, lake, (), FAST).counts["fates"] == {"accepted": 1}
    assert turns(store) == before + 1
    store.record_feedback(feedback_on(0, Thumb(up=False), "boss", trusted=True))  # and only then it goes
    run_ingest(store, lake, (), FAST)
    assert ("i1", "completion", None) in says(lake.examples())


def test_whoever_is_spoken_of_in_the_same_batch_needs_no_turn_more(tmp_path: Path) -> None:
    store, lake = desk(tmp_path)
    change_of_mind(store)
    store.record_feedback(feedback_on(1, Thumb(up=True), "another"))
    assert len(run_ingest(store, lake, (), FAST).batches) == 1
    assert says(lake.examples()) == {("i0", "rated", False), ("i1", "completion", None), ("i1", "rated", True)}
    assert turns(store) == 4


@pytest.mark.parametrize("dies", ["after the batch", "before the mark", "after the mark"])
def test_a_kill_between_the_two_databases_gives_one_turn(tmp_path: Path, dies: str) -> None:
    """The same as a kill between two steps of the end of a run, at each of them."""
    store, lake = desk(tmp_path, copies=3)
    change_of_mind(store)
    last = lake.last()
    assert last is not None
    with closing(IngestIndex(lake.index_path)) as index:
        assert len(list(run._batches(store, lake, index, FAST, None, last, lambda *_: None))) == 1
        assert index.merges.lost() == {"acme": ["e1-thumb-p1", "e2-thumb-p2"]}
        if dies == "before the mark":
            assert store.make_ready_again("acme", index.merges.lost()["acme"]) == 2
        elif dies == "after the mark":
            assert run._requeue_lost(store, index) == 2
    store.record_interaction(interaction(9, "And how high is it up there, by the way?", "154 m"))
    store.record_feedback(feedback_on(9, Thumb(up=True)))
    run_ingest(store, lake, (), FAST)
    assert turns(store) == 3 + 1 + 2 + 1, "each of the two lost ones has one turn more"
    assert says(lake.examples()) > {("i1", "completion", None), ("i1", "rated", True), ("i0", "rated", False)}
    assert fates(lake)["e2-thumb-p2"][0] == "merged"


def test_a_second_turn_is_not_counted_as_another_word_of_the_account(tmp_path: Path) -> None:
    """Else whoever was merged often would be a flood once the one copy goes."""
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    limits = AbuseConfig(min_events=6, max_share=0.01, fair_multiple=1.0)
    config = FAST.model_copy(update={"abuse": limits})
    asked = [interaction(n, PROMPT, ANSWER) for n in range(6)]
    put(store, asked, [feedback_on(n, Thumb(up=True), "p0" if n == 0 else "fan") for n in range(6)])
    run_ingest(store, lake, (), config)
    change_of_mind(store)
    report = run_ingest(store, lake, (), config)
    assert report.counts["fates"] == {"accepted": 1} and "abuse" not in report.counts
    with closing(IngestIndex(lake.index_path)) as index:
        assert index.activity.counts("acme", 0, 10**9) == {"p0": 2, "fan": 5}


def test_a_forgotten_persons_rows_are_not_named_any_more(tmp_path: Path) -> None:
    _, lake = desk(tmp_path, copies=3)
    with closing(IngestIndex(lake.index_path)) as index:
        index.forget("acme", ["i1"], "p1", ["e1-thumb-p1"])
        index.forget("acme", ["i0"], "p0", ["e0-thumb-p0"])
    assert b"i0" not in lake.index_path.read_bytes() and b"i1" not in lake.index_path.read_bytes()
