from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from feedback.duplicates.contradictions import contradictions
from feedback.events import Document, Edit, Rating, Reference, Thumb
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Lake
from feedback.lake.quarantine import accept, held_rows
from feedback.redaction.redact import RedactConfig
from feedback.store.store import Store
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.errors import CorruptArtifact, UserError
from tests.feedback.ingest_child import SMALL, source
from tests.feedback.world import FAST, feedback_on, fill, interaction, make_lake, make_store, put, ticket

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a file that have not been ingested yet."""
    folder = tmp_path_factory.mktemp("desk")
    fill_desk(folder)
    return folder


def fill_desk(folder: Path) -> None:
    fill(make_store(folder), tickets=150, bad_accounts=2, bad_events=30)
    chance = random.Random(5)
    lines = []
    for number in range(60):
        prompt, right = ticket(chance)
        lines.append(json.dumps({"q": f"{prompt} {number}", "a": "none", "fix": right, "who": f"w{number % 9}"}))
    lines[30] = "{broken"
    (folder / "more.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def expected(desk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("expected")
    shutil.copytree(desk, folder, dirs_exist_ok=True)
    run_ingest(make_store(folder), make_lake(folder), (source(folder),), SMALL)
    found = state(folder)
    assert sum(found["fates"].values()) == 180 + 59
    assert found["rejects"] == 1
    return found


def state(folder: Path) -> dict[str, Any]:
    """All that an ingest leaves behind that must not depend on how often it was killed."""
    lake, store = make_lake(folder), make_store(folder)
    fates = lake.scan("fates")
    assert fates is not None
    rows = fates.collect()
    events = Counter(rows["event_id"].to_list())
    assert set(events.values()) == {1}, "an event was dealt with twice"
    held = held_rows(store, lake)
    last = lake.last()
    assert last is not None
    return {
        # Events of files have the file's own time, so contents are compared without it.
        "examples": [e.model_dump(exclude={"created_at"}) for e in lake.examples()],
        "fates": Counter(rows["status"].to_list()),
        "held": sorted(row.row_id for row in held if row.step != "source"),
        "rejects": sum(row.step == "source" for row in held),
        "batches": last.batch,
        "counts": [lake.manifest(n).counts for n in range(1, last.batch + 1)],
    }


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.feedback.ingest_child", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_killed_anywhere_and_run_again_ends_the_same(
    desk: Path, expected: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    shutil.copytree(desk, tmp_path / "x")
    folder, chance, killed = tmp_path / "x", random.Random(seed), 0
    for _ in range(5):
        child = start(folder)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 0.8)
        child.kill()
        killed += child.wait() == -9
        child.stdout.close()
    assert killed >= 2
    run_ingest(make_store(folder), make_lake(folder), (source(folder),), SMALL)
    assert state(folder) == expected


def test_two_at_once_end_as_one(desk: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(desk, tmp_path / "x")
    children = [start(tmp_path / "x") for _ in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    assert state(tmp_path / "x") == expected


@pytest.mark.parametrize("dies_after", ["stage", "append", "learn", "both"])
def test_each_half_done_commit_is_finished_by_the_next_run(
    desk: Path, expected: dict[str, Any], tmp_path: Path, dies_after: str
) -> None:
    """The same as a kill between two steps of a commit, at each of them, for the first batch."""
    from feedback.index.ingest_index import IngestIndex
    from feedback.ingest import run
    from feedback.ingest.prefetch import PrefetchRequest, prepared_batches
    from feedback.lake.lake import Manifest
    from feedback.sources.landing import land

    folder = tmp_path / "x"
    shutil.copytree(desk, folder)
    store, lake = make_store(folder), make_lake(folder)
    land(store, source(folder))
    index = IngestIndex(lake.index_path)
    first = Manifest(batch=1, cursor=0).model_copy(update={"batch": 0})
    request = PrefetchRequest(0, 0, SMALL.batch_events, run._steps(SMALL))
    with closing(prepared_batches(store, request, apart=False)) as fresh:
        staged = run._compute(next(fresh), lake, index, SMALL, None, first)
    if dies_after in ("append", "both"):
        lake.append_staged(staged[0])
    if dies_after in ("learn", "both"):
        index.learn(1, staged[1])
    index.close()
    assert lake.last() is None and lake.examples() == []
    run_ingest(store, lake, (source(folder),), SMALL)
    assert state(folder) == expected


def test_running_again_changes_nothing_and_new_words_replace_old_ones(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "What is the capital of Peru, please?", "Quito"))
    store.record_feedback(feedback_on(1, Thumb(up=True), "ann"))
    assert run_ingest(store, lake, (), FAST).shapes == {"completion": 1, "rated": 1}
    before = lake.examples()
    assert run_ingest(store, lake, (), FAST).batches == ()
    assert lake.examples() == before
    store.record_feedback(feedback_on(1, Edit(text="Lima"), "boss", trusted=True))
    report = run_ingest(store, lake, (), FAST)
    assert report.counts["revisited"] == {"quarantined": 1}
    assert {e.shape: e.completion or e.chosen for e in lake.examples()} == {"completion": "Lima", "preference": "Lima"}
    assert [row.code for row in held_rows(store, lake)] == ["conflict"]
    assert [e.completion for e in lake.examples(through=1)] == [e.completion for e in before]


def test_a_lake_of_many_files_is_put_in_order_by_the_ingest(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    config = FAST.model_copy(update={"compact_files": 2})
    compacted = []
    for number in range(4):
        store.record_interaction(interaction(number, f"What is the {number}th question of the list about?"))
        store.record_feedback(feedback_on(number, Edit(text=f"answer {number}")))
        compacted.append(run_ingest(store, lake, (), config).compacted.get("accepted", 0))
    assert compacted == [0, 0, 3, 0]
    table = lake.table("accepted")
    assert table is not None and len(table.file_uris()) == 2
    assert {e.completion for e in lake.examples() if e.completion} == {f"answer {n}" for n in range(4)}
    assert {e.completion for e in lake.examples(through=2) if e.completion} == {"answer 0", "answer 1"}
    assert run_ingest(store, lake, (), config).batches == ()


def test_a_withdrawn_subject_leaves_no_rows(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "What is the capital of Peru, please?", "Quito"))
    store.record_feedback(feedback_on(1, Thumb(up=True), "ann"))
    run_ingest(store, lake, (), FAST)
    store.record_feedback(feedback_on(1, Thumb(up=False), "bob"))
    run_ingest(store, lake, (), FAST)
    assert lake.examples() == []
    assert sorted(row.code for row in held_rows(store, lake)) == ["conflict", "conflict"]


def test_feedback_without_interaction_waits_then_becomes_an_orphan(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    assert store.record_feedback(feedback_on(1, Thumb(up=True))).status == "parked"
    assert store.record_feedback(feedback_on(2, Thumb(up=True))).status == "parked"
    report = run_ingest(store, lake, (), FAST)
    assert (report.batches, report.parked) == ((), 2)
    store.record_interaction(interaction(1, "Will this arrive in time for the test?"))
    report = run_ingest(store, lake, (), FAST)
    assert (report.counts["fates"], report.parked) == ({"accepted": 1}, 1)
    report = run_ingest(store, lake, (), FAST.model_copy(update={"orphan_after_hours": 0.0}))
    assert (report.counts["quarantined"], report.parked) == ({"orphan": 1}, 0)
    assert run_ingest(store, lake, (), FAST.model_copy(update={"orphan_after_hours": 0.0})).batches == ()


def test_counts_add_up_over_every_kind_of_end(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number in range(4):
        store.record_interaction(interaction(number, "What is the capital city of Peru in America?", "Quito"))
        store.record_feedback(feedback_on(number, Edit(text="Lima"), f"p{number}"))
    store.record_interaction(interaction(9, "How many moons does Jupiter have, by the way?", "4"))
    store.record_feedback(feedback_on(9, Rating(score=3), "p1"))
    store.record_feedback(feedback_on(9, Reference(text="   "), "p2"))
    store.record_feedback(feedback_on(9, Thumb(up=True), "p3", event_id="first"))
    store.record_feedback(feedback_on(9, Thumb(up=False), "p3", event_id="second"))
    store.record_feedback(feedback_on("d", Document(text="A long enough document about moons."), interaction_id=None))
    counts = run_ingest(store, lake, (), FAST).counts
    assert counts["fates"] == {"accepted": 3, "merged": 4, "quarantined": 2}
    assert counts["merged"] == {"duplicate": 3, "superseded": 1}
    assert counts["quarantined"] == {"empty": 1, "neutral": 1}
    assert counts["duplicates"] == {"exact": 6}


@pytest.mark.parametrize("together", [True, False])
def test_a_document_may_bear_an_interactions_id(tmp_path: Path, together: bool) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    fates: Counter[str] = Counter()
    store.record_feedback(
        feedback_on("1", Document(text="A document about moons."), event_id="i1", interaction_id=None)
    )
    if not together:
        fates.update(run_ingest(store, lake, (), FAST).counts["fates"])
    put(store, [interaction(1, "Where is Lima?")], [feedback_on(1, Edit(text="In Peru."))])
    fates.update(run_ingest(store, lake, (), FAST).counts["fates"])
    assert fates == {"accepted": 2}
    assert {e.shape for e in lake.examples()} == {"document", "completion", "preference"}


def test_tenants_are_apart(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for tenant in ("acme", "other"):
        store.record_interaction(interaction(1, "What is the capital city of Peru in America?", "x", tenant=tenant))
        store.record_feedback(feedback_on(1, Edit(text="Lima"), tenant=tenant))
    assert run_ingest(store, lake, (), FAST).shapes == {"completion": 2, "preference": 2}
    assert {e.tenant for e in lake.examples(tenant="other")} == {"other"}


@pytest.mark.parametrize("policy", ["redact", "drop", "refuse"])
def test_personal_data_by_policy(tmp_path: Path, policy: str) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    store.record_interaction(interaction(1, "I am ann@example.org and my wifi is down", "ok ann@example.org"))
    store.record_feedback(
        feedback_on(1, Edit(text="Dear ann@example.org, try bob@example.org"), comment="from ann@example.org")
    )
    config = FAST.model_copy(update={"redact": RedactConfig.model_validate({"policy": policy})})
    if policy == "refuse":
        with pytest.raises(UserError, match=r"EMAIL.*refuse"):
            run_ingest(store, lake, (), config)
        assert lake.last() is None
        return
    run_ingest(store, lake, (), config)
    if policy == "redact":
        completion = next(e for e in lake.examples() if e.shape == "completion")
        assert completion.messages[0].content == "I am [EMAIL_1] and my wifi is down"
        assert completion.completion == "Dear [EMAIL_1], try [EMAIL_2]"
        store.record_interaction(interaction(2, "How do I set it up again, please?", task="for ann@example.org"))
        store.record_feedback(feedback_on(2, Edit(text="Press the button")))
        run_ingest(store, lake, (), config)
        assert {e.task for e in lake.examples()} == {None, "for [EMAIL_1]"}
    else:
        assert lake.examples() == []
        assert [row.code for row in held_rows(store, lake)] == ["personal-data"]
    assert not [p for p in (tmp_path / "lake").rglob("*") if p.is_file() and b"ann@example" in p.read_bytes()]


def test_a_store_on_postgres_makes_the_same_lake(postgres_url: str, tmp_path: Path) -> None:
    engine = connect(postgres_url)
    create_tables(engine)
    stores, lakes = (make_store(tmp_path), Store(engine)), (Lake(tmp_path / "one"), Lake(tmp_path / "other"))
    reports = []
    for store, lake in zip(stores, lakes, strict=True):
        fill(store, tickets=60, bad_accounts=1, bad_events=15)
        store.record_interaction(interaction("asked", "What is the capital city of Peru in America?", "Quito"))
        store.record_feedback(feedback_on("asked", Rating(score=3), "someone", event_id="neutral"))
        reports.append(run_ingest(store, lake, (), SMALL))
    assert reports[1].counts == reports[0].counts and len(reports[1].batches) == 4
    assert lakes[1].examples() == lakes[0].examples() != []
    held = [row.row_id for row in held_rows(stores[0], lakes[0])]
    assert [row.row_id for row in held_rows(stores[1], lakes[1])] == held != []
    for store, lake in zip(stores, lakes, strict=True):
        assert run_ingest(store, lake, (), SMALL).batches == ()
        accept(store, lake, held[0], by="ann")
        assert run_ingest(store, lake, (), SMALL).batches == (5,)
    assert lakes[1].examples() == lakes[0].examples()
    engine.dispose()


def test_a_lost_index_is_not_silently_begun_anew(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    fill(store, tickets=5)
    run_ingest(store, lake, (), FAST)
    for file in tmp_path.glob("lake/index.db*"):
        file.unlink()
    with pytest.raises(CorruptArtifact, match="restore both"):
        run_ingest(store, lake, (), FAST)


def test_near_copies_are_found_across_batches_from_disk(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    long = " ".join(f"word{n}" for n in range(60))
    for number, prompt in enumerate([long, long.replace("word30", "other"), long + " and more"]):
        store.record_interaction(interaction(number, prompt, "no"))
        store.record_feedback(feedback_on(number, Edit(text="yes" if number < 2 else "perhaps"), f"p{number}"))
        report = run_ingest(store, Lake(lake.path), (), FAST)
        if number == 1:
            assert report.counts["duplicates"] == {"near": 2}
    assert report.counts["duplicates"] == {"contradictions": 2}
    pairs, total = contradictions(lake, "acme", last=1)
    assert (len(pairs), total) == (1, 2) and contradictions(lake, "other") == ([], 0)
    both, _ = contradictions(lake, "acme")
    said_so = {(p.shape, p.later.says, p.earlier.says) for p in both}
    assert said_so == {("completion", "perhaps", "yes"), ("preference", "perhaps > no", "yes > no")}
    assert all(p.later.subject == "i2" and p.earlier.subject == "i0" and not p.later.trusted for p in both)
    # A trusted word settles it: the row is made anew, and the pair is none any longer.
    store.record_feedback(feedback_on(2, Edit(text="yes"), "boss", trusted=True))
    run_ingest(store, lake, (), FAST)
    assert contradictions(lake, "acme") == ([], 0)


@pytest.mark.parametrize("size", [3, 1_000])
def test_two_bad_answers_do_not_contradict_but_two_verdicts_on_one_answer_do(tmp_path: Path, size: int) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    long = " ".join(f"word{n}" for n in range(60))
    right, wrong = "right" * size, "wrong" * size  # long ones are kept shortened
    for number, (answer, good) in enumerate([(wrong, False), (right + "x", False), (right, True), (wrong, True)]):
        store.record_interaction(interaction(number, f"{long} {number % 3}", answer))
        store.record_feedback(feedback_on(number, Thumb(up=good), f"p{number}"))
        run_ingest(store, Lake(lake.path), (), FAST)
    both, _ = contradictions(lake, "acme")
    rated = [(p.later.subject, p.earlier.subject) for p in both if p.shape == "rated"]
    assert rated == [("i3", "i0")]
    assert len([e for e in lake.examples() if e.shape == "rated"]) == 4


@pytest.mark.parametrize("batches", [1, 2])
def test_another_answer_to_the_very_same_short_prompt_is_a_contradiction(tmp_path: Path, batches: int) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    asked = ["Opening hours?", "opening hours?", "Opening hours today?", "Opening hours?", "Opening hours?"]
    answers = ["9 to 5", "closed", "10 to 4", "9 to 5", "9 to 5"]
    found: Counter[str] = Counter()
    for number, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
        tenant = "other" if number == 4 else "acme"
        store.record_interaction(interaction(number, prompt, "no idea", tenant=tenant))
        store.record_feedback(feedback_on(number, Edit(text=answer), f"p{number}", tenant=tenant))
        if batches > 1 or number == 4:
            found += Counter(run_ingest(store, Lake(lake.path), (), FAST).counts.get("duplicates", {}))
    assert found == {"exact": 2, "contradictions": 2}
    both, _ = contradictions(lake, "acme")
    assert {(p.shape, p.later.subject, p.earlier.subject) for p in both} == {
        ("completion", "i1", "i0"), ("preference", "i1", "i0"),
    }  # fmt: skip
    assert contradictions(lake, "other") == ([], 0)


def test_an_orphans_age_counts_from_its_arrival(tmp_path: Path) -> None:
    store: Store = make_store(tmp_path)
    store.record_feedback(feedback_on(1, Thumb(up=True), created_at=now() - timedelta(days=400)))
    assert store.give_up_waiting(now() - timedelta(hours=1)) == 0
    assert store.give_up_waiting(now() + timedelta(hours=1)) == 1
