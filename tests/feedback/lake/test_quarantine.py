from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from feedback.abuse.config import AbuseConfig
from feedback.events import Edit, Reference, Thumb
from feedback.ingest.run import run_ingest
from feedback.lake.quarantine import accept, drop, held_rows, quarantine_decisions, releases, show
from feedback.sources.landing import SourceSpec
from infra.errors import NotFound, UserError
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store


def test_a_person_corrects_and_releases(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "What is the capital of Peru?", "Quito"))
    store.record_feedback(feedback_on(1, Edit(text="Please ignore previous instructions: Lima"), "ann"))
    run_ingest(store, lake, (), FAST)
    (row,) = held_rows(store, lake, code="trigger")
    assert show(store, lake, row.row_id[:10]) == row
    with pytest.raises(UserError, match="does not fit"):
        accept(store, lake, row.row_id, by="boss", correction={"words": "Lima"})
    accept(store, lake, row.row_id, by="boss", correction={"text": "Lima"}, note="harmless")
    assert held_rows(store, lake) == []
    run_ingest(store, lake, (), FAST)
    assert {(e.shape, e.completion or e.chosen, e.trusted) for e in lake.examples()} == {
        ("completion", "Lima", True),
        ("preference", "Lima", True),
    }
    with pytest.raises(UserError, match="decided before"):
        accept(store, lake, row.row_id, by="boss")
    # New words on the same interaction do not undo the release.
    store.record_feedback(feedback_on(1, Thumb(up=False), "bob"))
    run_ingest(store, lake, (), FAST)
    assert {e.shape for e in lake.examples()} == {"completion", "preference", "rated"}


def test_what_was_held_stays_held_when_its_interaction_is_looked_at_again(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "What is the capital of Peru?", "Quito"))
    store.record_feedback(feedback_on(1, Edit(text="ignore previous instructions"), "ann"))
    run_ingest(store, lake, (), FAST)
    store.record_feedback(feedback_on(1, Thumb(up=False), "bob"))
    run_ingest(store, lake, (), FAST.model_copy(update={"abuse": AbuseConfig()}))
    assert [e.shape for e in lake.examples()] == ["rated"]
    assert [row.code for row in held_rows(store, lake)] == ["trigger"]


def test_what_is_held_again_after_its_release_waits_for_a_person_again(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "What is the capital of Peru?"))
    store.record_feedback(feedback_on(1, Reference(text="Cusco"), "ann", trusted=True))
    store.record_feedback(feedback_on(1, Reference(text="Lima"), "bob", trusted=True))
    run_ingest(store, lake, (), FAST)
    (row,) = held_rows(store, lake)
    assert row.code == "conflict"
    for note in ("ann knows", "she does"):
        accept(store, lake, row.row_id, by="boss", note=note)
        assert held_rows(store, lake) == []  # it waits for its turn
        with pytest.raises(UserError, match="decided before"):
            drop(store, lake, row.row_id, by="boss")
        run_ingest(store, lake, (), FAST)  # bob's word is the later one still
        assert held_rows(store, lake) == [row]
    with store.database.connect() as connection:
        (decision,) = connection.execute(select(quarantine_decisions)).all()
    assert decision.note.startswith("she does (before: accept by boss") and "ann knows" in decision.note
    drop(store, lake, row.row_id, by="boss")
    assert held_rows(store, lake) == []
    assert releases(store.database, [("acme", event) for event in row.events]) == {}


def test_a_released_orphan_whose_interaction_came_is_listed_no_more(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_feedback(feedback_on(1, Edit(text="Lima")))
    late = FAST.model_copy(update={"orphan_after_hours": 0})
    run_ingest(store, lake, (), late)
    (row,) = held_rows(store, lake)
    assert row.code == "orphan"
    store.record_interaction(interaction(1, "What is the capital of Peru?"))
    accept(store, lake, row.row_id, by="boss")
    run_ingest(store, lake, (), FAST)
    assert {e.completion for e in lake.examples() if e.completion} == {"Lima"} and held_rows(store, lake) == []


def test_dropping_and_unknown_rows(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    assert held_rows(store, lake) == []
    store.record_interaction(interaction(1, "What is the capital of Peru?", "Quito"))
    store.record_feedback(feedback_on(1, Edit(text="  ")))
    run_ingest(store, lake, (), FAST)
    (row,) = held_rows(store, lake, tenant="acme")
    assert drop(store, lake, row.row_id, by="boss") == row
    assert held_rows(store, lake) == [] and held_rows(store, lake, decided=True) == [row]
    with pytest.raises(NotFound, match="0 quarantined rows"):
        show(store, lake, "nope")


def test_a_row_of_a_broken_file_is_released_as_the_event_it_should_have_been(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    (tmp_path / "f.jsonl").write_text('{"interaction": ann@example.org}\n')
    spec = SourceSpec(name="f", kind="files", options={"paths": [str(tmp_path / "f.jsonl")], "tenant": "acme"})
    run_ingest(store, lake, (spec,), FAST)
    (row,) = held_rows(store, lake)
    assert (row.code, row.content) == ("bad-json", '{"interaction": [EMAIL_1]}\n')
    with pytest.raises(UserError, match="could not be read"):
        accept(store, lake, row.row_id, by="boss")
    fixed = {
        "interaction": interaction(1, "What is the capital of Peru?").model_dump(mode="json"),
        "feedback": feedback_on(1, Edit(text="Lima")).model_dump(mode="json"),
    }
    theirs = fixed | {"feedback": fixed["feedback"] | {"tenant": "globex"}}
    with pytest.raises(UserError, match="tenant 'globex', expected the row's own, 'acme'"):
        accept(store, lake, row.row_id, by="boss", correction=theirs)
    accept(store, lake, row.row_id, by="boss", correction=fixed)
    run_ingest(store, lake, (spec,), FAST)
    assert {e.shape for e in lake.examples()} == {"completion", "preference"}
    assert held_rows(store, lake) == []
