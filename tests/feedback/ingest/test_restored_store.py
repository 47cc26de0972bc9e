"""The database restored from a backup while the lake stays: nothing new is skipped, by refusing, and taken in once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete

from feedback.events import Edit
from feedback.ingest.restored_store import accept_store
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Lake
from feedback.quality.ingest_health import IngestHealthConfig, ingest_stale
from feedback.sources.watermark import high_water
from feedback.store.store import Store, feedback, feedback_ready
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.errors import CorruptArtifact, UserError
from tests.feedback.ingest_child import SMALL, source
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store, put


def tell(store: Store, *names: str) -> None:
    asked = [interaction(name, f"How do I mend the {name} of my house number {name}?") for name in names]
    put(store, asked, [feedback_on(name, Edit(text=f"For {name}, ask {name}.")) for name in names])


def names(first: int, last: int) -> list[str]:
    return [f"n{number}" for number in range(first, last)]


def restored(folder: Path, between: Callable[[Store], None]) -> tuple[Store, Lake]:
    """A database as it was before `between`, with the lake as it is after an ingest of it."""
    store, lake = make_store(folder), make_lake(folder)
    tell(store, *names(0, 5))
    run_ingest(store, lake, (), FAST)
    tell(store, *names(5, 8))  # backed up, not ingested yet
    with store.database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(folder / "store.db", folder / "backup.db")
    between(store)
    run_ingest(store, lake, (), FAST)
    return brought_back(folder, store), lake


def brought_back(folder: Path, store: Store) -> Store:
    store.database.dispose()
    for ending in ("", "-wal", "-shm"):
        (folder / f"store.db{ending}").unlink(missing_ok=True)
    shutil.copy(folder / "backup.db", folder / "store.db")
    return make_store(folder)


def fates(lake: Lake) -> Counter[str]:
    rows = lake.scan("fates")
    assert rows is not None
    return Counter(rows.collect()["subject"].to_list())


def subjects(lake: Lake) -> set[str]:
    return {example.subject for example in lake.examples()}


@pytest.mark.parametrize("new", [3, 40], ids=["behind the cursor", "grown past the cursor"])
def test_what_comes_after_a_restore_is_refused_then_taken_in_once(tmp_path: Path, new: int) -> None:
    store, lake = restored(tmp_path, lambda store: tell(store, *names(8, 25)))
    tell(store, *names(100, 100 + new))
    before = lake.last()
    assert before is not None and before.cursor == 25
    for _ in range(2):
        with pytest.raises(CorruptArtifact, match=r"number 25 .*accept-store") as refused:
            run_ingest(store, lake, (), FAST)
    assert "\n" not in str(refused.value) and str(8 + new) in str(refused.value)
    assert lake.last() == before, "nothing was done"
    assert "not the one" in str(ingest_stale(store.database, lake, now(), IngestHealthConfig()))
    accepted = accept_store(store, lake)
    assert (accepted.cursor_before, accepted.cursor, accepted.waiting) == (25, 8, new)
    report = run_ingest(store, lake, (), FAST)
    assert report.counts["fates"] == {"accepted": new}
    assert run_ingest(store, lake, (), FAST).batches == ()
    assert set(fates(lake).values()) == {1}, "an event was dealt with twice"
    expected = {f"i{name}" for name in [*names(0, 25), *names(100, 100 + new)]}
    assert subjects(lake) == expected
    with pytest.raises(UserError, match="belong together"):
        accept_store(store, lake)


def test_a_staged_batch_of_the_lost_database_is_seen_and_kept(tmp_path: Path) -> None:
    class Dying(Lake):
        def append_staged(self, manifest: object) -> object:  # type: ignore[override]
            raise KeyboardInterrupt

    def killed(store: Store) -> None:
        tell(store, *names(8, 25))
        with pytest.raises(KeyboardInterrupt):
            run_ingest(store, Dying(tmp_path / "lake"), (), FAST)

    store, lake = make_store(tmp_path), make_lake(tmp_path)
    tell(store, *names(0, 5))
    run_ingest(store, lake, (), FAST)
    with store.database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(tmp_path / "store.db", tmp_path / "backup.db")
    killed(store)
    store = brought_back(tmp_path, store)
    tell(store, *names(100, 103))
    with pytest.raises(CorruptArtifact, match="number 22"):
        run_ingest(store, lake, (), FAST)
    assert accept_store(store, lake).cursor == 5
    assert run_ingest(store, lake, (), FAST).counts["fates"] == {"accepted": 3}
    assert set(fates(lake).values()) == {1}
    assert len(subjects(lake)) == 5 + 17 + 3, "what was staged before the restore is kept"


def test_a_person_who_released_something_after_the_restore_is_heard(tmp_path: Path) -> None:
    store, lake = restored(tmp_path, lambda store: tell(store, *names(8, 25)))
    store.make_ready_again("acme", ["en6-edit-someone"])
    tell(store, *names(100, 103))
    accepted = accept_store(store, lake)
    assert (accepted.cursor, accepted.waiting) == (8, 4)


def test_rows_of_files_that_cannot_be_read_are_a_cursor_too(tmp_path: Path) -> None:
    def lines(*rows: str) -> None:
        (tmp_path / "more.jsonl").write_text("".join(row + "\n" for row in rows))

    store, lake = restored(tmp_path, lambda store: None)
    lines("{one", "{two", "{three")
    run_ingest(store, lake, (source(tmp_path),), SMALL)
    store = brought_back(tmp_path, store)
    lines("{four", "{five", "{six")
    with pytest.raises(CorruptArtifact, match="source_rejects"):
        run_ingest(store, lake, (source(tmp_path),), SMALL)
    accept_store(store, lake)
    run_ingest(store, lake, (source(tmp_path),), SMALL)
    rows = lake.scan("quarantine")
    assert rows is not None
    held = rows.collect()
    assert Counter(held["code"].to_list()) == {"bad-json": 6}


def test_a_lake_of_an_earlier_release_is_checked_by_its_numbers(tmp_path: Path) -> None:
    store, lake = restored(tmp_path, lambda store: tell(store, *names(8, 25)))
    for path in (lake.path / "batches").glob("*.json"):
        known = {k: v for k, v in json.loads(path.read_text()).items() if not k.endswith("_mark")}
        path.write_text(json.dumps(known))
    tell(store, *names(100, 103))
    with pytest.raises(CorruptArtifact, match=r"number 25 .* given out 11 only"):
        run_ingest(store, lake, (), FAST)
    assert accept_store(store, lake).cursor == 8
    assert run_ingest(store, lake, (), FAST).counts["fates"] == {"accepted": 3}


def test_another_database_is_not_taken_for_the_lakes_own(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    tell(store, *names(0, 5))
    run_ingest(store, lake, (), FAST)
    (tmp_path / "other").mkdir()
    other = make_store(tmp_path / "other")
    tell(other, *names(50, 60))
    with pytest.raises(CorruptArtifact, match="another database"):
        run_ingest(other, lake, (), FAST)
    accept_store(other, lake)
    assert run_ingest(other, lake, (), FAST).counts["fates"] == {"accepted": 10}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_rows_that_were_forgotten_are_no_restore(request: pytest.FixtureRequest, tmp_path: Path, database: str) -> None:
    if database == "postgres":
        store = Store(connect(request.getfixturevalue("postgres_url")))
        create_tables(store.database)
    else:
        store = make_store(tmp_path)
    lake = make_lake(tmp_path)
    run_ingest(store, lake, (), FAST)
    tell(store, *names(0, 5))
    run_ingest(store, lake, (), FAST)
    with store.database.begin() as connection:
        connection.execute(delete(feedback_ready))
        connection.execute(delete(feedback))
    assert high_water(store.database, feedback_ready) == 5
    assert run_ingest(store, lake, (), FAST).batches == ()
    tell(store, *names(5, 7))
    assert run_ingest(store, lake, (), FAST).counts["fates"] == {"accepted": 2}


def test_a_lake_restored_alone_reads_again(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    tell(store, *names(0, 5))
    run_ingest(store, lake, (), FAST)
    shutil.copytree(lake.path, tmp_path / "kept")
    tell(store, *names(5, 9))
    run_ingest(store, lake, (), FAST)
    shutil.rmtree(lake.path)
    (tmp_path / "kept").rename(lake.path)
    assert run_ingest(store, Lake(lake.path), (), FAST).counts["fates"] == {"accepted": 4}
    assert len(subjects(lake)) == 9
