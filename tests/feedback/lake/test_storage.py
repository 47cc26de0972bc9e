"""A lake in an S3-compatible store, over real HTTP: the same lake as on disk, with one writer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.erasure.belongings import find_belongings
from feedback.erasure.lake import erase_from_lake
from feedback.events import Rating
from feedback.ingest.run import locked, run_ingest
from feedback.lake.lake import Lake
from feedback.lake.maintenance import maintain
from feedback.lake.quarantine import accept, held_rows
from feedback.lake.storage import ObjectStorage
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot
from infra.errors import CorruptArtifact, UserError
from tests.feedback.world import FAST, feedback_on, fill, interaction, make_lake, make_store
from tests.s3 import objects, s3_server

SMALL = FAST.model_copy(update={"batch_events": 20})
URL = "s3://feedback/team/lake"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield address


def test_the_same_lake_as_on_disk(s3: str, tmp_path: Path) -> None:
    store, here, there = make_store(tmp_path), make_lake(tmp_path), Lake(tmp_path / "there", URL)
    fill(store, tickets=50, bad_accounts=1, bad_events=10)
    store.record_interaction(interaction("asked", "What is the capital city of Peru in America?", "Quito"))
    store.record_feedback(feedback_on("asked", Rating(score=3), "someone"))
    assert there.last() is None and there.examples() == []
    reports = [run_ingest(store, lake, (), SMALL) for lake in (here, there)]
    assert reports[0].counts == reports[1].counts and len(reports[1].batches) == 4
    assert there.examples() == here.examples() != [] and there.examples(through=2) == here.examples(through=2)
    assert not list(there.path.rglob("*.parquet")) and there.last() is not None
    assert run_ingest(store, there, (), SMALL).batches == ()
    # Whoever knows the folder alone (the console) finds the tables.
    reader = Lake(there.path)
    assert reader.examples() == here.examples()
    held = held_rows(store, reader)
    accept(store, reader, held[0].row_id, by="ann")
    for lake in (here, there):
        assert run_ingest(store, lake, (), SMALL).batches == (5,)
    config = SnapshotConfig()
    cuts = [cut_snapshot(lake, tmp_path / name, config, tenant="acme") for lake, name in ((here, "a"), (there, "b"))]
    assert cuts[0].id == cuts[1].id
    with locked(there):
        done = maintain(there, keep_hours=0)
    assert done.compacted["accepted"] >= 3 and done.files["accepted"] == 1
    assert there.examples() == here.examples()


def test_what_is_forgotten_is_in_no_object(s3: str, tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), Lake(tmp_path / "lake", URL)
    fill(store, tickets=40)
    run_ingest(store, lake, (), SMALL)
    person = store.interactions_after(0, 1)[0][1].user
    assert person is not None
    found = find_belongings(store, lake, "acme", person)
    assert any(row.subject in found.subjects for row in lake.examples())
    with locked(lake):
        removed = erase_from_lake(lake, found)
    assert removed["lake fates"] >= 1
    assert not any(row.subject in found.subjects for row in lake.examples())
    lake.storage.fetch(tmp_path / "copy")
    import polars as pl

    files = list((tmp_path / "copy").rglob("*.parquet"))
    left = {subject for f in files if "_delta_log" not in f.parts for subject in pl.read_parquet(f)["subject"]}
    assert left and not left & found.subjects
    logs = list((tmp_path / "copy").rglob("_delta_log/*.json"))
    assert not any(subject in log.read_text() for log in logs for subject in found.subjects)


def test_one_address_has_one_writer(s3: str, tmp_path: Path) -> None:
    store, lake, other = make_store(tmp_path), Lake(tmp_path / "one", URL), Lake(tmp_path / "other", URL)
    fill(store, tickets=10)
    run_ingest(store, lake, (), SMALL)
    before = objects(s3)
    with pytest.raises(UserError, match="written by another lake folder"):
        run_ingest(store, other, (), SMALL)
    assert objects(s3) == before
    with pytest.raises(UserError, match="put the old one back"):
        run_ingest(store, Lake(lake.path, "s3://feedback/elsewhere"), (), SMALL)
    local = make_lake(tmp_path)
    run_ingest(store, local, (), SMALL)
    with pytest.raises(UserError, match="holds a lake already"):
        run_ingest(store, Lake(local.path, "s3://feedback/elsewhere"), (), SMALL)


def test_a_manifest_is_put_once(s3: str) -> None:
    place = ObjectStorage(URL)
    place.write(1, "first")
    place.write(1, "first")  # an answer that was lost on the way
    with pytest.raises(CorruptArtifact, match="one lake has one writer"):
        place.write(1, "second")
    assert place.read(1) == b"first" and place.batches() == [1]


def test_a_batch_that_was_half_put_is_finished(s3: str, tmp_path: Path) -> None:
    store, lake, whole = make_store(tmp_path), Lake(tmp_path / "lake", URL), make_lake(tmp_path / "whole")
    fill(store, tickets=30)
    run_ingest(store, whole, (), SMALL)

    class Died(Exception):
        pass

    class Dying(Lake):
        def publish(self, manifest: object) -> None:
            raise Died

    with pytest.raises(Died):
        run_ingest(store, Dying(lake.path, URL), (), SMALL)
    assert lake.last() is None and lake.examples() == []
    assert run_ingest(store, lake, (), SMALL).batches == (1, 2)
    assert lake.examples() == whole.examples() != []


def test_a_store_that_is_away_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot write to the lake at s3://feedback/team/lake"):
        run_ingest(make_store(tmp_path), Lake(tmp_path / "lake", URL), (), SMALL)
