"""What a later release wrote is read, and what it said besides is kept; from outside nothing unknown is taken."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from deploy.gateway.capture.spool import Spool
from feedback.events import Edit, Feedback, Interaction
from feedback.index.ingest_index import IngestIndex
from feedback.ingest.run import run_ingest
from feedback.lake.lake import Lake, Manifest
from feedback.lake.quarantine import held_rows
from feedback.snapshots.snapshot import SnapshotConfig, cut_snapshot, load_snapshot
from feedback.snapshots.splits import SplitStore
from infra.stored_model import FORMS, NewerForm
from tests.feedback.world import FAST, feedback_on, interaction, make_lake, make_store


def later(body: str) -> str:
    """The same body as a later release might have written it: a new field here, one in a part of it."""
    values = json.loads(body)
    values["told_by"] = "a later release"
    part = values["messages"][0] if "messages" in values else values["value"]
    part["new_part"] = {"x": 1}
    return json.dumps(values)


def test_an_event_keeps_what_it_does_not_know() -> None:
    for body in (interaction(1, "hello").model_dump_json(), feedback_on(1, Edit(text="so")).model_dump_json()):
        kind = Interaction if "messages" in body else Feedback
        read = kind.model_validate_json(later(body))
        assert json.loads(read.model_dump_json()) == json.loads(later(body))
        assert json.loads(read.model_copy(update={"source": "x"}).model_dump_json())["told_by"] == "a later release"
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            kind.model_validate_json(later(body), extra="forbid")


def test_rows_of_a_later_release_are_ingested_after_going_back(tmp_path: Path) -> None:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number in range(3):
        store.record_interaction(interaction(number, f"what about invoice {number * 7919}?"))
        store.record_feedback(feedback_on(number, Edit(text=f"invoice {number} is paid"), actor="agent", trusted=True))
    with store.database.begin() as connection:
        for table in ("interactions", "feedback"):
            for seq, body in connection.execute(text(f"SELECT seq, body FROM {table}")).all():  # noqa: S608
                connection.execute(
                    text(f"UPDATE {table} SET body = :body WHERE seq = :seq"),  # noqa: S608
                    {"body": later(body), "seq": seq},
                )
    run_ingest(store, lake, FAST.sources, FAST)
    assert len(lake.examples(tenant="acme")) == 2 * 3, "a completion and a pair of each"


def test_the_spool_lands_what_another_release_put_there_whole(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text(later(interaction(1, "hello").model_dump_json()) + "\n")
    landed: list[Interaction] = []
    assert Spool(tmp_path, 10_000).land(landed.extend) == 1
    assert '"told_by":"a later release"' in landed[0].model_dump_json()


def ingested(tmp_path: Path, first: int = 0) -> Lake:
    store, lake = make_store(tmp_path), make_lake(tmp_path)
    for number in range(first, first + 4):
        store.record_interaction(interaction(number, f"what about invoice {number * 7919}?"))
        store.record_feedback(feedback_on(number, Edit(text=f"invoice {number} is paid"), actor="agent", trusted=True))
    run_ingest(store, lake, FAST.sources, FAST)
    return lake


def test_a_lake_with_columns_of_another_release_is_read_and_written_on(tmp_path: Path) -> None:
    import polars as pl
    from deltalake import write_deltalake

    lake = ingested(tmp_path)
    ids = [example.example_id for example in lake.examples()]
    for table in ("accepted", "fates", "quarantine"):
        there = lake.table(table)
        if there is None:
            continue
        # A later one added a column; to this one it is as if an earlier one had not had `version` and `task` yet.
        rows = pl.read_delta(lake.storage.table(table)).with_columns(pl.lit("later").alias("told_by"))
        rows = rows.drop([name for name in ("version", "task") if name in rows.columns])
        write_deltalake(there, rows, mode="overwrite", schema_mode="overwrite", partition_by=["tenant"])
    again = lake.examples()
    assert [example.example_id for example in again] == ids
    assert {example.version for example in again} == {None}
    assert again[0].model_dump()["told_by"] == "later"
    ingested(tmp_path, first=10)
    assert len(lake.examples()) == 2 * len(ids)
    assert {example.version for example in lake.examples()} == {None, "v1"}
    assert {example.model_dump().get("told_by") for example in lake.examples()} == {"later", None}
    assert held_rows(make_store(tmp_path), lake) == []


def test_forms_of_a_later_release_are_refused_in_words(tmp_path: Path) -> None:
    lake = ingested(tmp_path)
    snapshot = cut_snapshot(lake, tmp_path / "snapshots", SnapshotConfig(), tenant="acme")
    manifest = snapshot.path / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"form": 2}))
    with pytest.raises(NewerForm, match=r"form 2 of a snapshot, this release of Ratchet knows up to 1"):
        load_snapshot(snapshot.path)

    batch = tmp_path / "lake" / "batches" / "00000001.json"
    assert Manifest.model_validate_json(batch.read_text()).model_extra == {}
    batch.write_text(json.dumps(json.loads(batch.read_text()) | {"form": 2}))
    with pytest.raises(NewerForm, match="of a lake") as refused:
        lake.examples()
    assert refused.value.exit_code == 2

    index = lake.index_path
    with sqlite3.connect(index) as connection:
        connection.execute(f"PRAGMA user_version={FORMS['index of the past'] + 1}")
    with pytest.raises(NewerForm, match="index of the past"):
        IngestIndex(index)
    with sqlite3.connect(tmp_path / "snapshots" / "firewall.db") as connection:
        connection.execute("PRAGMA user_version=2")
    with pytest.raises(NewerForm, match="of a firewall"):
        SplitStore(tmp_path / "snapshots")
