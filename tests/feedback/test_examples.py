from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from feedback.events import Edit, Feedback, Preference, Rating, Reference, Thumb, Value
from feedback.examples import ShapeRules
from feedback.ingest.build_examples import build, group_of
from feedback.ingest.run import run_ingest
from feedback.snapshots.gate_items import items_of
from infra.artifact import key_of
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store

RULES = ShapeRules()
ASKED = interaction(1, "What is the capital of Peru?", "Quito")


def made(*words: Feedback) -> tuple[dict[str, str | None], dict[str, str]]:
    """(shape -> what it teaches, event -> code of its outcome)"""
    built = build(ASKED, words, RULES)
    taught: dict[str, str | None] = {e.shape: e.chosen or e.reference or e.completion for e in built.examples}
    assert len(taught) == len(built.examples)
    return taught, {event: outcome.code for event, outcome in built.outcomes.items()}


@pytest.mark.parametrize(
    ("value", "shapes"),
    [
        (Thumb(up=True), {"completion": "Quito", "rated": "Quito"}),
        (Thumb(up=False), {"rated": "Quito"}),
        (Rating(score=4), {"completion": "Quito", "rated": "Quito"}),
        (Rating(score=2), {"rated": "Quito"}),
        (Rating(score=3), {}),
        (Edit(text="Lima"), {"completion": "Lima", "preference": "Lima"}),
        (Edit(text=" quito "), {"completion": "Quito"}),
        (Preference(chosen="Lima", rejected="Quito"), {"preference": "Lima"}),
        (Reference(text="Lima", grader="exact"), {"completion": "Lima", "problem": "Lima"}),
        (Reference(text="L[a-z]+", grader="regex"), {"problem": "L[a-z]+"}),
        (Reference(text='{"type": "object"}', grader="json_schema"), {"problem": '{"type": "object"}'}),
    ],
)
def test_one_word_makes_its_shapes(value: Value, shapes: dict[str, str]) -> None:
    assert made(feedback_on(1, value))[0] == shapes


def test_beside_a_pattern_other_words_give_the_answer_to_learn() -> None:
    pattern = feedback_on(1, Reference(text="L[a-z]+", grader="regex"), "p1", event_id="a")
    assert made(pattern, feedback_on(1, Edit(text="Lima"), "p2", event_id="b"))[0] == {
        "problem": "L[a-z]+",
        "completion": "Lima",
        "preference": "Lima",
    }


def test_the_last_word_and_the_dearest_word_speak_for_a_person() -> None:
    taught, fates = made(feedback_on(1, Thumb(up=True), event_id="a"), feedback_on(1, Thumb(up=False), event_id="b"))
    assert taught == {"rated": "Quito"} and fates == {"a": "superseded", "b": "accepted"}
    taught, fates = made(feedback_on(1, Thumb(up=True), event_id="a"), feedback_on(1, Edit(text="Lima"), event_id="b"))
    assert taught == {"completion": "Lima", "preference": "Lima"} and fates == {"a": "superseded", "b": "accepted"}


def test_majority_then_trusted_then_edits() -> None:
    up, up2, down = (feedback_on(1, Thumb(up=n < 2), f"p{n}", event_id=f"{n}") for n in range(3))
    assert made(up, up2, down) == (
        {"completion": "Quito", "rated": "Quito"},
        {"0": "accepted", "1": "accepted", "2": "conflict"},
    )
    trusted = down.model_copy(update={"trusted": True})
    assert made(up, up2, trusted) == ({"rated": "Quito"}, {"0": "conflict", "1": "conflict", "2": "accepted"})
    assert made(up, down) == ({}, {"0": "conflict", "2": "conflict"})
    edit = feedback_on(1, Edit(text="Lima"), "p9", event_id="9")
    assert made(up, edit) == ({"completion": "Lima", "preference": "Lima"}, {"0": "conflict", "9": "accepted"})


def test_of_several_edits_the_trusted_then_the_commonest_then_the_latest() -> None:
    edits = [feedback_on(1, Edit(text=t), f"p{n}", event_id=str(n)) for n, t in enumerate(["Lima", "LIMA", "Cusco"])]
    taught, fates = made(*edits)
    assert taught["completion"] == "LIMA" and fates == {"0": "accepted", "1": "accepted", "2": "conflict"}
    assert made(edits[0], edits[2])[0]["completion"] == "Cusco"
    boss = feedback_on(1, Edit(text="Lima, Peru"), "boss", trusted=True)
    assert made(*edits, boss)[0]["completion"] == "Lima, Peru"


def test_two_equal_answers_are_no_preference_and_no_answer_cannot_be_rated() -> None:
    assert made(feedback_on(1, Preference(chosen="a b", rejected="A  B"), event_id="x")) == (
        {},
        {"x": "empty-preference"},
    )
    silent = ASKED.model_copy(update={"answer": ""})
    built = build(
        silent, [feedback_on(1, Thumb(up=True), event_id="x"), feedback_on(1, Edit(text="Lima"), event_id="y")], RULES
    )
    assert [e.shape for e in built.examples] == ["completion"]
    assert built.outcomes["x"].code == "no-answer"


def test_groups_follow_the_rule_and_fall_back() -> None:
    mine = ASKED.model_copy(update={"session": "s"})
    assert group_of(mine, RULES) == group_of(mine.model_copy(update={"interaction_id": "other"}), RULES)
    by_session = ShapeRules(group_by="session")
    assert group_of(mine, RULES) != group_of(mine, by_session)
    assert group_of(mine.model_copy(update={"user": None}), RULES) == group_of(mine, by_session)
    assert group_of(mine, RULES) != group_of(mine.model_copy(update={"tenant": "other"}), RULES)


values = st.one_of(
    st.builds(Thumb, up=st.booleans()),
    st.builds(Rating, score=st.integers(1, 5).map(float)),
    st.builds(Edit, text=st.sampled_from(["Lima", "Cusco", "Quito"])),
    st.builds(Preference, chosen=st.sampled_from(["Lima", "Quito"]), rejected=st.sampled_from(["Cusco", "Quito"])),
    st.builds(Reference, text=st.sampled_from(["Lima", "Cusco"])),
)


@given(st.lists(st.tuples(values, st.sampled_from("abcd"), st.booleans()), max_size=8))
def test_every_event_has_one_fate_and_every_example_a_source(words: list[tuple[Value, str, bool]]) -> None:
    events = [feedback_on(1, v, a, trusted=t, event_id=f"e{n}") for n, (v, a, t) in enumerate(words)]
    built = build(ASKED, events, RULES)
    assert built.outcomes.keys() == {e.event_id for e in events}
    accepted = {e for e, outcome in built.outcomes.items() if outcome.status == "accepted"}
    assert all(example.source_events and set(example.source_events) <= accepted for example in built.examples)
    for e in built.examples:
        asked = [m.model_dump(mode="json", exclude_none=True) for m in e.messages]
        parts = {"completion": ("completion",), "rated": ("completion", "good"), "preference": ("chosen", "rejected")}
        content = {name: getattr(e, name) for name in parts.get(e.shape, ("reference", "grader"))}
        assert e.example_id == "x-" + key_of([e.tenant, e.subject, e.shape, asked, content])[:24]
    assert len({e.example_id for e in built.examples}) == len(built.examples)
    assert sum(e.shape == "completion" for e in built.examples) <= 1
    assert build(ASKED, events, RULES) == built


def anonymous(value: Value, event_id: str, source: str = "files:votes.csv") -> Feedback:
    return feedback_on(1, value, source, source=source, event_id=event_id)


def test_rows_that_name_nobody_are_each_somebody_else() -> None:
    votes = [anonymous(Thumb(up=number < 9), f"r{number}") for number in range(10)]
    taught, fates = made(*votes)
    assert taught == {"completion": "Quito", "rated": "Quito"}
    assert fates == {f"r{number}": "accepted" for number in range(9)} | {"r9": "conflict"}
    taught, fates = made(*votes, feedback_on(1, Thumb(up=False), "boss", trusted=True, event_id="b"))
    assert taught == {"rated": "Quito"} and fates["b"] == "accepted"


def test_what_one_row_says_in_two_columns_is_one_persons() -> None:
    taught, fates = made(anonymous(Thumb(up=True), "r1/thumb"), anonymous(Edit(text="Lima"), "r1/edit"))
    assert taught == {"completion": "Lima", "preference": "Lima"}
    assert fates == {"r1/thumb": "superseded", "r1/edit": "accepted"}


def test_whoever_is_called_like_the_gateway_is_somebody() -> None:
    _, fates = made(
        *(feedback_on(1, Thumb(up=up), "gateway", source="gateway", event_id=str(up)) for up in (True, False))
    )
    assert fates == {"True": "superseded", "False": "accepted"}


def test_an_answer_that_was_cut_off_is_marked_where_it_stands_in_a_row() -> None:
    cut = interaction(1, "Capital of Peru?", "The capital of Peru is", finish_reason="length")
    assert {e.shape: e.cut for e in build(cut, [feedback_on(1, Thumb(up=True))], RULES).examples} == {
        "completion": ("completion",),
        "rated": ("completion",),
    }
    assert {e.shape: e.cut for e in build(cut, [feedback_on(1, Edit(text="Lima"))], RULES).examples} == {
        "completion": (),
        "preference": ("rejected",),
    }
    better = Preference(chosen="The capital of Peru is", rejected="Quito")
    assert [e.cut for e in build(cut, [feedback_on(1, better)], RULES).examples if e.shape == "preference"] == [
        ("chosen",)
    ]
    left = interaction(1, "Capital of Peru?", "The capital", finish_reason="cancelled")
    assert all(e.cut for e in build(left, [feedback_on(1, Thumb(up=True))], RULES).examples)
    for reason in ("stop", None, "unknown"):
        whole = interaction(1, "Capital of Peru?", "Lima", finish_reason=reason)
        made = build(whole, [feedback_on(1, Thumb(up=True))], RULES).examples
        assert made and not any(e.cut for e in made)


def test_a_cut_answer_is_no_right_answer_of_the_gate() -> None:
    cut = interaction(1, "Capital of Peru?", "The capital of Peru is", finish_reason="length")
    approved = build(cut, [feedback_on(1, Thumb(up=True), trusted=True)], RULES).examples
    edited = build(cut, [feedback_on(1, Edit(text="Lima"), trusted=True)], RULES).examples
    assert items_of(approved, "rolling", cut.created_at) == []
    assert [item.reference for item in items_of(edited, "rolling", cut.created_at)] == ["Lima"]


def test_a_lake_from_before_answers_were_marked_as_cut_reads_and_grows(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction("old", "What is the capital of Peru, please?", "Lima"))
    store.record_feedback(feedback_on("old", Thumb(up=True)))
    run_ingest(store, lake, (), FAST)
    place = lake.storage.table("accepted")
    without = pl.read_delta(place).drop("cut")
    write_deltalake(place, without, mode="overwrite", schema_mode="overwrite", partition_by=["tenant"])
    assert [e.cut for e in lake.examples()] == [(), ()]
    store.record_interaction(
        interaction("new", "How long does a refund of my order take?", "It takes", finish_reason="length")
    )
    store.record_feedback(feedback_on("new", Thumb(up=True), "else"))
    run_ingest(store, lake, (), FAST)
    assert sorted((e.completion, e.cut) for e in lake.examples() if e.shape == "completion") == [
        ("It takes", ("completion",)),
        ("Lima", ()),
    ]
