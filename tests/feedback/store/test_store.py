from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from feedback.events import Edit, Interaction, Rating, Routing, Thumb
from feedback.store.store import Receipt
from tests.feedback.world import START, feedback_on, interaction, make_store


def test_events_count_once_and_are_there_for_another_process(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    one = interaction(1, "hello")
    assert store.record_interaction(one) and not store.record_interaction(one)
    thumb = feedback_on(1, Thumb(up=True))
    assert store.record_feedback(thumb) == Receipt("stored")
    assert store.record_feedback(thumb.model_copy(update={"value": Thumb(up=False)})) == Receipt("duplicate")
    assert store.record_feedback(thumb.model_copy(update={"tenant": "other"})) == Receipt("parked")
    fresh = make_store(tmp_path)
    assert fresh.interaction("acme", "i1") == one and fresh.interaction("acme", "i2") is None
    assert fresh.feedback_for("acme", "i1") == [thumb]


def test_parked_feedback_gets_its_turn_when_its_interaction_comes(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    early = feedback_on(1, Thumb(up=True))
    assert store.record_feedback(early).status == "parked"
    assert (store.feedback_after(0, 10), store.parked()) == ([], 1)
    store.record_interaction(interaction(1, "hello"))
    (ready,) = store.feedback_after(0, 10)
    assert (ready.feedback, ready.orphan, store.parked()) == (early, False, 0)
    assert store.feedback_after(ready.seq, 10) == []


def test_a_reader_that_follows_the_sequence_misses_nothing_of_many_writers(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    def write(worker: int) -> None:
        mine = make_store(tmp_path)
        for number in range(20):
            mine.record_feedback(feedback_on(f"{worker}-{number}", Thumb(up=True)))
            mine.record_interaction(interaction(f"{worker}-{number}", "hello"))
            mine.record_interaction(interaction("shared", "hello"))

    seen: list[str] = []
    cursor = 0
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write, worker) for worker in range(4)]
        while True:
            finished = all(job.done() for job in running)
            rows = store.feedback_after(cursor, 7)
            seen += [row.feedback.event_id for row in rows]
            cursor = rows[-1].seq if rows else cursor
            if finished and not rows:
                break
        for job in running:
            job.result()
    assert len(seen) == len(set(seen)) == 80
    assert len(store.interactions_after(0, 1000)) == 81


def routed(number: int, unit: str, arm: str) -> Interaction:
    routing = Routing.model_validate({"release_seq": 7, "arm": arm, "unit": unit, "probability": 0.25})
    return interaction(number, "q", routing=routing, created_at=START + timedelta(seconds=number))


def test_units_are_rated_by_last_words(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number, (unit, arm) in enumerate([("u1", "canary"), ("u1", "canary"), ("u2", "holdback"), ("u3", "canary")]):
        store.record_interaction(routed(number, unit, arm))
    store.record_feedback(feedback_on(0, Thumb(up=False), event_id="a"))
    store.record_feedback(feedback_on(0, Thumb(up=True), event_id="b"))
    store.record_feedback(feedback_on(1, Rating(score=3), trusted=True))
    store.record_feedback(feedback_on(2, Thumb(up=False)))
    store.record_feedback(feedback_on(3, Edit(text="x")))
    rated = {unit.unit: unit for unit in store.rated_units("acme", 7)}
    assert {name: (u.arm, u.score, u.ratings) for name, u in rated.items()} == {
        "u1": ("canary", 0.75, 2),
        "u2": ("holdback", 0.0, 1),
    }
    assert (rated["u1"].probability, rated["u1"].first_seen, rated["u1"].trusted) == (0.25, START, False)
    assert store.assigned_units("acme", 7) == {"canary": 2, "holdback": 1}
    # Received long after these interactions' time, so outside any window of seconds.
    assert store.rated_units("acme", 7, window_s=60) == []
    assert store.rated_units("acme", 8) == [] and store.rated_units("other", 7) == []
