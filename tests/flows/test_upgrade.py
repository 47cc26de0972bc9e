"""What Ratchet 0.1.0 wrote, by its own code, is migrated, opened, and gone on with; ids stay what they were."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from deploy.api_keys import create_key, list_keys
from deploy.controller.canary_watch import policy_in_force
from deploy.controller.run import run
from deploy.gateway.__main__ import main as gateway
from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.routing.assign import RoutingTable
from deploy.gateway.routing.follow_ledger import RoutingTables
from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import current, history
from deploy.nights.challenger import Challenger
from deploy.sql_tables import declared
from deploy.versions.versions import find_version, list_versions, load_version
from evaluation.gate.verdict import Verdict
from evaluation.scorecard import read_scorecard
from feedback.events import Edit, Feedback
from feedback.ingest.run import IngestConfig, run_ingest
from feedback.lake.lake import Lake, lake_of
from feedback.lake.quarantine import held_rows
from feedback.snapshots.gate_items import gate_items, item_id_of
from feedback.snapshots.snapshot import cut_snapshot, load_snapshot
from feedback.store.store import Store, feedback, interactions
from feedback.store.user_salt import verify_salt
from flows.cli.migrate import migrate as migrate_command
from flows.config.job_files import controller_job, gateway_job
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.night.record import nights_of
from infra.artifact import verify
from infra.database.connect import connect, now
from infra.database.schema import SchemaMismatch, check, create_tables, differences, migrate, pending
from tests.flows.world import ratchet
from tests.old_pipeline import SALT, lay_out, load_into_postgres
from training.base_model import resolve_base
from training.stages.probe import read_probe

INTERACTIONS, FEEDBACK, CANARY_REQUESTS, HELD = 60, 97, 12, 17


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


@pytest.fixture
def migrated(file: Path) -> Engine:
    engine = connect(load_config(file).places.database)
    migrate(engine)
    return engine


def routed(engine: Engine, base: str) -> RoutingTable:
    tables = RoutingTables(engine, ReplicaPool([]), shared="default", base=base, poll_seconds=60.0)

    async def once() -> None:
        await tables.start()
        await tables.stop()

    asyncio.run(once())
    return tables.of("default")


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_the_database_is_recognised_migrated_and_read(dialect: str, file: Path, request: pytest.FixtureRequest) -> None:
    url = load_config(file).places.database
    if dialect == "postgres":
        url = request.getfixturevalue("postgres_url")
        load_into_postgres(url)
    engine = connect(url)
    with pytest.raises(SchemaMismatch, match="run `ratchet migrate`"):
        create_tables(engine)
    assert [name for name, _ in pending(engine)] == ["0001"]
    migrate(engine)
    create_tables(engine)
    with engine.connect() as connection:
        assert differences(connection, declared()) == []
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in (interactions, feedback)]
    assert counts == [INTERACTIONS, FEEDBACK]

    store = Store(engine)
    asked = store.interactions_after(0, 1000)
    assert len(asked) == INTERACTIONS and all(one.model_extra == {} for _, one in asked)
    assert sum(one.routing is not None for _, one in asked) == CANARY_REQUESTS
    assert len(store.feedback_after(0, 1000)) == FEEDBACK
    verify_salt(engine, SALT)

    standing = current(engine, "default")
    assert [line.action for line in history(engine, "default")] == ["baseline", "gated", "canary"]
    assert standing.canary is not None and standing.champion is not None
    assert policy_in_force(engine, standing, load_config(file).canary) == load_config(file).canary
    assert renew(engine, canary_lease("default"), "a-test", 60.0)
    table = routed(engine, standing.champion)
    assert (table.challenger, table.champion) == (standing.canary, standing.champion) and table.share > 0
    assert len(list_keys(engine, "default")) == 3
    create_key(engine, tenant="default", name="new", scopes=["chat"])
    store.record_feedback(new_word("i5"))


def quietly(config: PipelineConfig) -> IngestConfig:
    """Without the suite, which costs seconds a run."""
    expectations = config.ingest.expectations.model_copy(update={"enabled": False})
    return config.ingest.model_copy(update={"expectations": expectations})


def new_word(interaction_id: str) -> Feedback:
    return Feedback(
        event_id=f"new-{interaction_id}",
        tenant="default",
        interaction_id=interaction_id,
        actor="agent-9",
        trusted=True,
        kind="edit",
        value=Edit(text="category parcels and letters"),
        created_at=now(),
    )


def test_the_lake_is_read_and_goes_on(file: Path, migrated: Engine) -> None:
    config = load_config(file)
    store, lake = Store(migrated), lake_of(config.places)
    before, last = lake.examples(), lake.last()
    assert before and last is not None
    assert len(held_rows(store, lake)) == HELD
    run_ingest(store, lake, config.ingest.sources, quietly(config))
    store.record_feedback(new_word("i5"))
    report = run_ingest(store, lake, config.ingest.sources, quietly(config))
    assert report.batches and report.batches[0] > last.batch
    after = {example.example_id for example in lake.examples()}
    assert len({example.example_id for example in before} & after) >= len(before) - 2


def test_ids_of_what_was_said_stay_what_they_were(file: Path, migrated: Engine, tmp_path: Path) -> None:
    """A new field in a body that its id is made of would make every example, gate item and snapshot a new one."""
    config = load_config(file)
    old, anew = lake_of(config.places), Lake(tmp_path / "anew")
    night = nights_of(config, "default")[0]
    known = load_snapshot(config.places.snapshots_dir / night.steps["snapshot"])
    assert cut_snapshot(old, config.places.snapshots_dir, config.snapshot, tenant="default").id == known.id
    items = {item.item_id for item in gate_items(known)}
    assert items and items <= {item_id_of(example) for example in old.examples()}
    quiet = quietly(config)
    run_ingest(Store(migrated), anew, quiet.sources, quiet)
    assert {e.example_id for e in old.examples()} <= {e.example_id for e in anew.examples()}


def test_snapshot_night_stage_version_and_scorecard_are_opened(file: Path) -> None:
    config = load_config(file)
    (night,) = nights_of(config, "default")
    assert night.state == "done" and night.model_extra == {}
    verdict = Verdict.model_validate(night.steps["verdict"])
    assert verdict.decision == "promote" and verdict.winner is not None
    made = [Challenger.model_validate(step) for name, step in night.steps.items() if name.startswith("train ")]
    assert [one.stages[-1].version for one in made] == [verdict.winner]
    snapshot = load_snapshot(config.places.snapshots_dir / night.steps["snapshot"])
    assert verify(snapshot.path).key and len(gate_items(snapshot)) >= 4
    assert list_versions(config.places.versions_dir) == [verdict.winner]
    version = load_version(config.places.versions_dir, verdict.winner)
    assert read_probe(version.folder).prompts and version.record.model_extra == {}
    (config.places.versions_dir / verdict.winner).rename(file.with_name("moved away"))
    again = find_version(config.places.versions_dir, config.places.stages_dir, verdict.winner)
    assert again.digest == version.digest, "published from its stage"
    scorecard = read_scorecard(config.places.evaluations_dir / night.night_id)
    assert scorecard.night_id == night.night_id


def test_every_process_refuses_the_tables_until_they_are_migrated(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(file)
    base = resolve_base(config.base_model, config.places.cache_dir)
    job = tmp_path / "gateway.json"
    job.write_text(gateway_job(config, base).model_dump_json())
    monkeypatch.setenv("RATCHET_ENGINE_KEY", "k")
    monkeypatch.setenv("RATCHET_USER_SALT", SALT)
    assert gateway([str(job)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("gateway: the tables of") and "ratchet migrate" in said and "\n" not in said
    with pytest.raises(SchemaMismatch):
        run(controller_job(config, base), threading.Event())

    for words in (("up",), ("status",)):
        refused = ratchet(*words, config=file, check=False)
        assert refused.returncode == 2, words
        assert refused.stderr.strip().splitlines()[-1].startswith("error: the tables of"), refused.stderr
        assert "Traceback" not in refused.stderr
    with pytest.raises(SchemaMismatch, match="not those of this release"):
        migrate_command(config=file, check=True)
    migrate_command(config=file, dry_run=True)
    said = capsys.readouterr().out
    assert "to do: 0001" in said and ".backup" in said
    done = ratchet("migrate", config=file)
    assert "have version 0001" in done.stdout and "0001: The tables of Ratchet 0.1.0" in done.stderr
    migrate_command(config=file, check=True)
    assert "have version 0001" in capsys.readouterr().out
    check(connect(config.places.database))


def test_tables_that_lack_a_column_are_found_by_migrate_check(file: Path, migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE interactions DROP COLUMN probability")
    with pytest.raises(SchemaMismatch, match=r"interactions\.probability is missing"):
        migrate_command(config=file, check=True)
