from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.duplicates.fingerprints import prompt_text
from feedback.events import Edit, Preference, Reference, Thumb
from feedback.examples import Example
from feedback.ingest.run import run_ingest
from feedback.ingest.subjects import NormaliseConfig
from feedback.lake.lake import Lake
from feedback.snapshots.contamination import ContaminationCheck
from feedback.snapshots.gate_items import gate_items, mark_used, shown_items
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot, load_snapshot, training_parts
from feedback.snapshots.splits import part_of
from feedback.store.store import Store
from infra.artifact import verify
from infra.errors import CorruptArtifact, NotFound
from tests.feedback.world import FAST, START, feedback_on, fill, interaction, make_lake, make_store

HALF = SnapshotConfig(validation_share=0.1, rolling_share=0.2, frozen_share=0.2, frozen_items=10)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    fill(make_store(folder), tickets=200)
    run_ingest(make_store(folder), make_lake(folder), (), FAST)
    return folder


@pytest.fixture
def desk(world: Path, tmp_path: Path) -> tuple[Store, Lake]:
    shutil.copytree(world, tmp_path / "w")
    return make_store(tmp_path / "w"), make_lake(tmp_path / "w")


def rows(path: Path) -> list[Example]:
    return [Example.model_validate_json(line) for line in path.read_text().splitlines()]


def test_the_same_rows_and_config_give_the_same_snapshot_anywhere(world: Path, tmp_path: Path) -> None:
    lake = make_lake(world)
    one = cut_snapshot(lake, tmp_path / "a", HALF, tenant="acme")
    again = cut_snapshot(lake, tmp_path / "a", HALF, tenant="acme")
    elsewhere = cut_snapshot(lake, tmp_path / "b", HALF, tenant="acme")
    assert one == again and (one.id, one.digest) == (elsewhere.id, elsewhere.digest)
    assert load_snapshot(one.path) == one
    verify(one.path)
    other = cut_snapshot(lake, tmp_path / "a", HALF.model_copy(update={"near_gate": 1.0}), tenant="acme")
    assert other.id != one.id
    assert not list((tmp_path / "a").glob(".staging*"))


def test_parts_are_apart_by_group_and_the_gate_is_trusted(world: Path, tmp_path: Path) -> None:
    lake = make_lake(world)
    snapshot = cut_snapshot(lake, tmp_path, HALF, tenant="acme")
    train, validation = (rows(path) for path in training_parts(snapshot))
    gate = gate_items(snapshot)
    groups = [{e.group for e in train}, {e.group for e in validation}, {i.group for i in gate}]
    assert all(groups) and not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    trusted = {e.group for e in lake.examples() if e.trusted}
    assert {i.group for i in gate} <= trusted
    assert len(gate_items(snapshot, part="frozen")) == 10 == snapshot.counts["frozen"]["items"]
    assert {i.group for i in shown_items(snapshot)} <= groups[1]
    accounted = len(train) + len(validation) + sum(snapshot.removed.values())
    assert accounted <= len(lake.examples()) and snapshot.removed["not admitted to the gate"] > 0
    assert {p.parent.name for p in training_parts(snapshot)} == {"training"}


def test_a_gate_example_never_trains_later_whatever_the_config(desk: tuple[Store, Lake], tmp_path: Path) -> None:
    store, lake = desk
    first = cut_snapshot(lake, tmp_path / "s", HALF, tenant="acme")
    examined = {i.group for i in gate_items(first)}
    prompts = {prompt_text_of(i) for i in gate_items(first)}
    frozen = {i.item_id for i in gate_items(first, part="frozen")}
    for number in range(1000, 1060):
        store.record_interaction(interaction(number, f"A new question {number} that nobody asked before at all"))
        store.record_feedback(feedback_on(number, Edit(text=f"answer {number}"), "agent-1", trusted=True))
    run_ingest(store, lake, (), FAST)
    greedy = SnapshotConfig(validation_share=0.0, rolling_share=0.01, frozen_share=0.01, salt="another")
    for config in (HALF, greedy):
        later = cut_snapshot(lake, tmp_path / "s", config, tenant="acme")
        for path in training_parts(later):
            assert not {e.group for e in rows(path)} & examined
            assert not {prompt_text(e) for e in rows(path)} & prompts
        if config is HALF:
            assert {i.item_id for i in gate_items(later, part="frozen")} == frozen  # it was full
    bigger = cut_snapshot(lake, tmp_path / "s", HALF.model_copy(update={"frozen_items": 20}), tenant="acme")
    assert {i.item_id for i in gate_items(bigger, part="frozen")} > frozen


def prompt_text_of(item: object) -> str:
    return "\n".join(m.content for m in item.messages if m.role != "system")  # type: ignore[attr-defined]


def test_near_copies_of_gate_prompts_leave_training_and_are_counted(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    text = "my internet connection is very slow since yesterday evening and the router light blinks red number"
    for number in range(40):
        prompt = f"{text} {number}" if number % 2 else f"quite another matter {number} altogether for once {number}"
        store.record_interaction(interaction(number, prompt))
        store.record_feedback(feedback_on(number, Reference(text=f"do {number}"), "agent", trusted=True))
    run_ingest(store, lake, (), FAST)
    snapshot = cut_snapshot(lake, tmp_path / "s", HALF, tenant="acme")
    assert any(text in prompt_text_of(i) for i in gate_items(snapshot))
    assert not [e for path in training_parts(snapshot) for e in rows(path) if text in prompt_text(e)]
    assert snapshot.removed["near copies of gate prompts"] > 10


def test_items_carry_reference_pair_slices_and_uses(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number in range(30):
        prompt = f"Please tell me what the number {number} is in Roman numerals"
        store.record_interaction(interaction(number, prompt, "I do not know", task="numerals"))
        pair = Preference(chosen=f"R{number}", rejected="no idea")
        store.record_feedback(feedback_on(number, Reference(text=f"R{number}", grader="exact"), "agent", trusted=True))
        store.record_feedback(feedback_on(number, pair, "agent", trusted=True))
    run_ingest(store, lake, (), FAST)
    snapshot = cut_snapshot(lake, tmp_path / "s", HALF.model_copy(update={"near_gate": 1.0}), tenant="acme")
    item = gate_items(snapshot)[0]
    assert item.reference == item.chosen and item.rejected == "no idea" and item.grader == "exact"
    assert item.slices == {"tenant": "acme", "task": "numerals", "length": "short", "language": "en", "age": "week"}
    for _ in range(2):
        mark_used(tmp_path / "s", "acme", [item.item_id], "night-1")
    assert {i.item_id: i.uses for i in gate_items(snapshot)}[item.item_id] == 1


def test_used_and_old_items_retire_and_do_not_train(desk: tuple[Store, Lake], tmp_path: Path) -> None:
    store, lake = desk
    first = cut_snapshot(lake, tmp_path / "s", HALF, tenant="acme")
    rolling = gate_items(first, part="rolling")
    mark_used(tmp_path / "s", "acme", [i.item_id for i in rolling[:3]], "n1")
    strict = HALF.model_copy(update={"retire_uses": 1})
    later = cut_snapshot(lake, tmp_path / "s", strict, tenant="acme")
    assert later.removed["retired from the gate"] == 3
    store.record_interaction(interaction("new", "A much later question about nothing in particular"))
    store.record_feedback(feedback_on("new", Edit(text="x"), created_at=START + timedelta(days=100)))
    run_ingest(store, lake, (), FAST)
    aged = cut_snapshot(lake, tmp_path / "s", HALF, tenant="acme")
    assert gate_items(aged, part="rolling") == [] and len(gate_items(aged, part="frozen")) == 10
    assert not {e.group for e in rows(aged.train)} & {i.group for i in rolling}


def test_frozen_items_retire_by_use_and_new_ones_take_their_places(desk: tuple[Store, Lake], tmp_path: Path) -> None:
    _, lake = desk
    strict = HALF.model_copy(update={"retire_uses": 2})
    first = cut_snapshot(lake, tmp_path / "s", strict, tenant="acme")
    frozen = [i.item_id for i in gate_items(first, part="frozen")]
    worn = set(frozen[:3])
    mark_used(tmp_path / "s", "acme", frozen, "n1")
    mark_used(tmp_path / "s", "acme", worn, "n2")
    later = cut_snapshot(lake, tmp_path / "s", strict, tenant="acme")
    now = {i.item_id for i in gate_items(later, part="frozen")}
    assert len(now) == 10 and now & set(frozen) == set(frozen) - worn
    # The places went to questions of the rolling gate; the worn-out ones are in no part, training least of all.
    assert now - set(frozen) <= {i.item_id for i in gate_items(first, part="rolling")}
    assert not worn & {i.item_id for i in gate_items(later)}
    assert later.removed["retired from the gate"] == 3
    retired = {i.group for i in gate_items(first) if i.item_id in worn}
    assert not {e.group for path in training_parts(later) for e in rows(path)} & retired
    assert cut_snapshot(lake, tmp_path / "s", strict, tenant="acme").id == later.id


def test_changed_or_missing_snapshots_are_refused(world: Path, tmp_path: Path) -> None:
    snapshot = cut_snapshot(make_lake(world), tmp_path, HALF, tenant="acme")
    with pytest.raises(NotFound, match="nobody"):
        cut_snapshot(make_lake(world), tmp_path, HALF, tenant="nobody")
    manifest = json.loads((snapshot.path / "manifest.json").read_text())
    manifest["identity"]["tenant"] = "other"
    (snapshot.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptArtifact, match="changed"):
        load_snapshot(snapshot.path)
    (snapshot.path / "record.json").unlink()
    with pytest.raises(NotFound, match="no finished snapshot"):
        load_snapshot(snapshot.path)


@given(st.lists(st.text(min_size=1), min_size=1), st.text(min_size=1))
def test_a_group_has_one_part_for_ever(groups: list[str], salt: str) -> None:
    shares = {"validation": 0.1, "rolling": 0.2, "frozen": 0.1}
    assert [part_of(salt, g, shares) for g in groups] == [part_of(salt, g, shares) for g in groups]


def test_shares_are_kept() -> None:
    parts = [part_of("s", f"g{n}", {"validation": 0.1, "rolling": 0.2}) for n in range(20_000)]
    assert abs(parts.count("validation") / 20_000 - 0.1) < 0.01 and abs(parts.count("rolling") / 20_000 - 0.2) < 0.01


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14), max_size=12), st.data())
def test_the_firewall_finds_exactly_what_comparing_everything_finds(gate: list[list[str]], data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=14))
    near = ContaminationCheck([" ".join(g) for g in gate], near=0.6, min_words=4)

    def shingles(w: list[str]) -> set[tuple[str, ...]]:
        return {tuple(w[at : at + 3]) for at in range(len(w) - 2)} if len(w) >= 4 else set()

    mine = shingles(words)
    brute = any(g == words or len(mine & shingles(g)) >= 0.6 * len(mine | shingles(g)) for g in gate)
    assert near.holds(" ".join(words)) == brute


def test_a_row_dated_in_the_future_does_not_retire_the_rolling_gate(desk: tuple[Store, Lake], tmp_path: Path) -> None:
    """As a lake may hold it from before such feedback was held."""
    store, lake = desk
    before = cut_snapshot(lake, tmp_path / "a", HALF, tenant="acme")
    store.record_interaction(interaction("open", "Until when is this one valid, please?", user="u-open"))
    store.record_feedback(feedback_on("open", Edit(text="always"), created_at=datetime(9999, 12, 31, tzinfo=UTC)))
    allowed = FAST.model_copy(update={"normalise": NormaliseConfig(max_hours_ahead=1e8)})
    assert run_ingest(store, lake, (), allowed).counts["fates"] == {"accepted": 1}
    after = cut_snapshot(lake, tmp_path / "a", HALF, tenant="acme")
    assert after.counts["rolling"] == before.counts["rolling"] and before.counts["rolling"]["items"] > 0
    assert "retired from the gate" not in after.removed


def test_explored_answers_weigh_more_in_training_and_nowhere_else(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    arms, routed = ("champion", "canary", "arena"), {"release_seq": 1, "unit": "u", "probability": 0.1, "arm": "arena"}
    for number in range(90):
        arm = routed | {"arm": arms[number % 3]}
        store.record_interaction(interaction(number, f"question {number} about topic {number * 7}", routing=arm))
        store.record_feedback(feedback_on(number, Thumb(up=number % 2 == 0), trusted=True))
    for number in range(90, 120):
        store.record_interaction(interaction(number, f"question {number} of its own", routing=routed))
        store.record_feedback(feedback_on(number, Reference(text=f"answer {number}"), trusted=True))
    run_ingest(store, lake, (), FAST)
    split = SnapshotConfig(validation_share=0.4, rolling_share=0.0, frozen_share=0.0)
    for weight in (2.0, 5.0, 1.0):
        snapshot = cut_snapshot(
            lake, tmp_path / "s", split.model_copy(update={"explored_weight": weight}), tenant="acme"
        )
        train, validation = (rows(path) for path in training_parts(snapshot))
        shown = {(e.shape, e.reason, e.explored): e.weight for e in train}
        assert shown == {
            ("completion", "approved", True): weight,
            ("completion", "approved", False): 1.0,
            ("rated", "approved", True): weight,
            ("rated", "approved", False): 1.0,
            ("rated", "rejected", True): weight,
            ("rated", "rejected", False): 1.0,
            ("completion", "reference", True): 1.0,
            ("problem", "reference", True): 1.0,
        }
        assert any(e.explored for e in validation) and {e.weight for e in validation} == {1.0}
    assert SnapshotConfig().explored_weight == 2.0


def test_a_firewall_that_was_restored_alone_or_lost_moves_nobody_across(world: Path, tmp_path: Path) -> None:
    lake = make_lake(world)
    first = cut_snapshot(lake, tmp_path / "a", HALF, tenant="acme")
    for file in (tmp_path / "a").glob("firewall.db*"):
        file.unlink()
    second = cut_snapshot(lake, tmp_path / "a", HALF.model_copy(update={"salt": "another"}), tenant="acme")
    assert second.id != first.id

    def groups(path: Path, *names: str) -> set[str]:
        return {json.loads(row)["group"] for name in names for row in (path / name).read_text().splitlines()}

    gate = ("gate/rolling.jsonl", "gate/frozen.jsonl")
    # Groups of which nothing was in any part (not admitted, near copies) may fall anywhere; nobody examined or trained
    # on them.
    trained, examined = groups(first.path, "training/train.jsonl"), groups(first.path, *gate)
    assert trained and examined
    assert not groups(second.path, *gate) & trained and not groups(second.path, "training/train.jsonl") & examined
    assert groups(second.path, *gate) >= examined
