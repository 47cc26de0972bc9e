"""The version of the SQL tables: fresh ones, those of before versions, of a newer release, and racing starters."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Engine, inspect, text

from infra.database import schema
from infra.database.connect import connect
from infra.database.schema import VERSION_TABLE, SchemaMismatch, check, create_tables, head, migrate, pending, state_of


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path / 'a.db'}"


def kind_of(engine: Engine) -> str:
    with engine.connect() as connection:
        return state_of(connection).kind


def say(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def made(url: str) -> Engine:
    engine = connect(url)
    create_tables(engine)
    return engine


def unversioned(url: str, *statements: str) -> Engine:
    engine = made(url)
    say(engine, f"DROP TABLE {VERSION_TABLE}", *statements)
    return engine


def test_first_starters_on_an_empty_database_do_not_race(url: str) -> None:
    together = Barrier(5)

    def start(_: int) -> str:
        engine = connect(url)
        with engine.connect():
            pass
        together.wait(30)
        create_tables(engine)
        kind = kind_of(engine)
        engine.dispose()
        return kind

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(start, range(5))) == ["current"] * 5


def test_tables_of_before_versions_are_refused_until_migrated(url: str) -> None:
    engine = unversioned(url, "DROP TABLE noise_floors", "DROP INDEX interactions_user", "DROP TABLE arena_pairs")
    for start in (create_tables, check):
        with pytest.raises(
            SchemaMismatch, match=r"no version, as of Ratchet 0\.1\.0.*run `ratchet migrate`"
        ) as refused:
            start(engine)
        assert refused.value.exit_code == 2
    assert [name for name, _ in pending(engine)] == ["0001"]
    assert kind_of(engine) == "unversioned", "only looked at"
    told: list[str] = []
    migrate(engine, lambda name, what: told.append(f"{name} {what}"))
    assert told == ["0001 The tables of Ratchet 0.1.0, which kept no version of them."]
    check(engine)
    assert {"noise_floors", "arena_pairs"} <= set(inspect(engine).get_table_names())
    assert "interactions_user" in {index["name"] for index in inspect(engine).get_indexes("interactions")}
    migrate(engine, lambda *step: told.append("again"))
    assert pending(engine) == [] and len(told) == 1


def test_the_refusal_names_no_password(postgres_url: str) -> None:
    with pytest.raises(SchemaMismatch) as refused:
        create_tables(unversioned(postgres_url))
    assert ":***@" in str(refused.value)


def test_the_ledger_stays_append_only_after_a_migration(url: str) -> None:
    engine = unversioned(url)
    migrate(engine)
    say(
        engine,
        "INSERT INTO releases (tenant, tenant_seq, action, version, actor, reason, evidence, at) "
        "VALUES ('a', 1, 'baseline', 'v', 'x', 'y', '{}', 1)",
    )
    for wrong in ("UPDATE releases SET version = 'w'", "DELETE FROM releases"):
        with pytest.raises(Exception, match="append-only"):
            say(engine, wrong)


@pytest.mark.parametrize(
    "lost", ["ALTER TABLE interactions DROP COLUMN probability", "ALTER TABLE releases ADD x TEXT"]
)
def test_tables_that_no_release_made_are_not_taken_for_those_of_one(url: str, lost: str) -> None:
    engine = unversioned(url, lost)
    for look in (pending, migrate):
        with pytest.raises(SchemaMismatch, match=r"interactions\.probability is missing|releases\.x is unknown"):
            look(engine)
    assert kind_of(engine) == "unversioned"


def test_an_index_that_somebody_added_harms_nobody(url: str) -> None:
    engine = unversioned(url, "CREATE INDEX mine ON interactions (version)")
    migrate(engine)
    check(engine)


def test_tables_of_a_newer_release_are_refused_in_words(url: str) -> None:
    engine = made(url)
    say(engine, "UPDATE ratchet_alembic_version SET version_num = '0999'")
    for start in (create_tables, check, pending, migrate):
        with pytest.raises(SchemaMismatch, match=r"version 0999, which this release .* does not know") as refused:
            start(engine)
        assert refused.value.exit_code == 2


def test_other_tables_in_the_same_database_are_let_alone(url: str) -> None:
    engine = connect(url)
    say(engine, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('mlflow-s')")
    create_tables(engine)
    check(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "mlflow-s"
        assert connection.scalar(text("SELECT version_num FROM ratchet_alembic_version")) == head()


def test_looking_at_another_s_empty_database_makes_nothing(url: str) -> None:
    engine = connect(url)
    with pytest.raises(SchemaMismatch, match="holds no tables of Ratchet"):
        check(engine)
    assert inspect(engine).get_table_names() == []


SECOND = """'''The second.'''
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade():
    op.add_column("interactions", sa.Column("mood", sa.Text()))
    {then}
"""


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As if this were a release with a second revision: its file."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(schema.__file__).with_name("migrations"), folder)
    monkeypatch.setattr(schema, "_FOLDER", folder)
    file = folder / "versions" / "r0002_second.py"
    file.write_text(SECOND.format(then="pass"))
    schema._revisions.cache_clear()
    yield file
    schema._revisions.cache_clear()


def test_a_second_revision_waits_for_migrate_and_is_run_once(
    url: str, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = next_release.read_text()
    next_release.unlink()
    schema._revisions.cache_clear()
    engine = made(url)
    next_release.write_text(second)
    schema._revisions.cache_clear()
    with pytest.raises(
        SchemaMismatch, match=r"have version 0001, this release of Ratchet needs 0002: .*`ratchet migrate`"
    ):
        create_tables(engine)
    assert pending(engine) == [("0002", "The second.")]
    migrate(engine)
    create_tables(engine)
    assert "mood" in {column["name"] for column in inspect(engine).get_columns("interactions")}
    monkeypatch.undo()
    schema._revisions.cache_clear()
    with pytest.raises(SchemaMismatch, match="version 0002, which this release"):  # going back
        create_tables(engine)


def test_a_revision_that_fails_leaves_everything_as_it_was(url: str, next_release: Path) -> None:
    next_release.write_text(SECOND.format(then="raise RuntimeError('the disk is full')"))
    engine = connect(url)
    with pytest.raises(RuntimeError, match="the disk is full"):
        create_tables(engine)
    assert inspect(engine).get_table_names() == []
