"""Which version the SQL tables have, and whether this release is made for it.

Tables are made and changed by the revisions in `infra/database/migrations` and by nothing else: an empty database is
made by running them all, one of an earlier release is brought up by `ratchet migrate`, and every process that opens a
database looks first. One row in a table of our own says where a database stands; a name of our own, since MLflow and
Prefect keep theirs with Alembic too, perhaps in the same database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Engine, MetaData, inspect, text

from infra.database.connect import begin_write
from infra.errors import UserError

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from alembic.script import ScriptDirectory

VERSION_TABLE = "ratchet_alembic_version"
_FOLDER = Path(__file__).with_name("migrations")
_TURN = 7203642  # of whoever makes or changes tables on Postgres; one number below is the store's own
_ALEMBIC = threading.Lock()  # what revisions call (`alembic.op`) is one thing in a process
_MADE_GOOD = frozenset({"add_table", "add_index", "remove_index"})
"""Differences from the first revision that it mends itself, or that harm nobody: an index that somebody added."""


class SchemaMismatch(UserError):
    """The tables are not those that this release is made for."""


@dataclass(frozen=True)
class SchemaState:
    """Where a database stands."""

    found: str | None
    """Its revision; None where none is written down."""
    kind: Literal["empty", "unversioned", "older", "current", "newer"]
    """What that is to this release; unversioned: tables as 0.1.0 made them, which kept no version."""


@dataclass(frozen=True)
class Difference:
    """One thing in which tables are not as they should be."""

    kind: str
    """Alembic's word for what would mend it."""
    words: str
    """For people."""


def head() -> str:
    """The newest revision, that of this release."""
    return _revisions()[-1]


def state_of(connection: Connection) -> SchemaState:
    """Where a database stands."""
    tables = set(inspect(connection).get_table_names())
    found = None
    if VERSION_TABLE in tables:
        found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  a name of our own
    if found is None:
        return SchemaState(None, "unversioned" if tables and tables & _first_tables().tables.keys() else "empty")
    if found == head():
        return SchemaState(found, "current")
    return SchemaState(found, "older" if found in _revisions() else "newer")


def check(engine: Engine) -> None:
    """See that the tables are those of this release.

    Raises:
        SchemaMismatch: they are not, or there are none.
    """
    with engine.connect() as connection:
        state = state_of(connection)
    if state.kind != "current":
        raise SchemaMismatch(_mismatch(engine, state))


def prepare(engine: Engine) -> None:
    """Make the tables of an empty database, see of any other that they are those of this release.

    Several processes may start on an empty database at once: one makes the tables, the others wait and find them.

    Raises:
        SchemaMismatch: the tables are of another release.
    """
    with engine.connect() as connection:
        state = state_of(connection)
    if state.kind == "empty":
        with _alone(engine) as connection:
            state = state_of(connection)
            if state.kind == "empty":
                _upgrade(connection)
                return
    if state.kind != "current":
        raise SchemaMismatch(_mismatch(engine, state))


def pending(engine: Engine) -> list[tuple[str, str]]:
    """(revision, what it does) of what `migrate` would run; nothing is changed.

    Raises:
        SchemaMismatch: as `migrate`.
    """
    with engine.connect() as connection:
        state = _migratable(engine, connection)
    scripts = _scripts()
    todo = [name for name in _revisions() if state.found is None or name > state.found]
    return [(name, str(scripts.get_revision(name).doc)) for name in todo]


def migrate(engine: Engine, tell: Callable[[str, str], None] = lambda *_: None) -> None:
    """Bring the tables to this release, in one transaction: all of it or nothing. Harmless when they are there.

    Args:
        tell: called with the revision and what it did, after each.

    Raises:
        SchemaMismatch: a newer release changed them, or they are not as 0.1.0 left them.
    """
    with _alone(engine) as connection:
        if _migratable(engine, connection).kind != "current":
            _upgrade(connection, tell)


def differences(connection: Connection, tables: MetaData) -> list[Difference]:
    """How the database's tables differ from `tables`. Other tables in the same database are not looked at."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def ours(item: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
        return kind != "table" or name in tables.tables

    options = {"include_object": ours, "compare_type": True, "version_table": VERSION_TABLE}
    context = MigrationContext.configure(connection, opts=options)
    found: list[Difference] = []
    for one in compare_metadata(context, tables):
        found += [_difference(*change) for change in (one if isinstance(one, list) else [one])]
    return found


def _difference(kind: str, *what: Any) -> Difference:
    if kind.endswith("_column"):
        words = f"{what[1]}.{what[2].name} {'is missing' if kind == 'add_column' else 'is unknown'}"
    elif kind.startswith("modify_"):
        words = f"{what[1]}.{what[2]}: {kind.removeprefix('modify_')} is {what[4]}, expected {what[5]}"
    else:
        named = what[0].name or ", ".join(getattr(what[0], "columns", {}).keys())
        missing = "is missing" if kind.startswith("add_") else "is unknown"
        words = f"{kind.partition('_')[2]} {named} of {getattr(what[0], 'table', what[0])} {missing}"
    return Difference(kind, words)


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that nobody else makes or changes tables beside."""
    with begin_write(engine) as connection:
        if engine.dialect.name == "postgresql":
            # However long others take, and however large the tables are: time limits are for serving.
            for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"SET LOCAL {limit} = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_TURN})"))
        yield connection


def _migratable(engine: Engine, connection: Connection) -> SchemaState:
    state = state_of(connection)
    if state.kind == "newer":
        raise SchemaMismatch(_mismatch(engine, state))
    if state.kind == "unversioned":
        wrong = [one.words for one in differences(connection, _first_tables()) if one.kind not in _MADE_GOOD]
        if wrong:
            raise SchemaMismatch(
                f"the tables of {_name(engine)} keep no version and are not as Ratchet 0.1.0 made them: "
                f"{'; '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}; restore them from a backup of 0.1.0"
            )
    return state


def _upgrade(connection: Connection, tell: Callable[[str, str], None] = lambda *_: None) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    scripts = _scripts()

    def steps(revision: Any, _: Any) -> Any:
        return scripts._upgrade_revs(head(), revision)

    def applied(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
        name = str(step.up_revision_id)
        tell(name, str(scripts.get_revision(name).doc))

    with _ALEMBIC, EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection=connection, version_table=VERSION_TABLE, on_version_apply=applied)
        with environment.begin_transaction():
            environment.run_migrations()


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(_FOLDER))


def _first_tables() -> MetaData:
    tables: MetaData = _scripts().get_revision(_revisions()[0]).module.tables
    return tables


@cache
def _revisions() -> Sequence[str]:
    """Every revision this release knows, oldest first, by the names of their files: quick to find, at each start."""
    return sorted(file.name[1:5] for file in (_FOLDER / "versions").glob("r[0-9]*.py"))


def _mismatch(engine: Engine, state: SchemaState) -> str:
    name = _name(engine)
    if state.kind == "empty":
        return f"{name} holds no tables of Ratchet; check the address, or start the pipeline that it belongs to first"
    if state.kind == "newer":
        return (
            f"the tables of {name} have version {state.found}, which this release of Ratchet, made for {head()}, does "
            "not know: a newer one changed them; use that one, or restore the backup made before it"
        )
    found = f"version {state.found}" if state.found else "no version, as of Ratchet 0.1.0"
    return (
        f"the tables of {name} have {found}, this release of Ratchet needs {head()}: stop what runs, make a backup and "
        "run `ratchet migrate`"
    )


def _name(engine: Engine) -> str:
    return f"database {engine.url.render_as_string(hide_password=True)}"


def create_tables(engine: Engine) -> None:
    """Make the tables of an empty database, several processes at once if need be; refuse those of another release.

    Raises:
        SchemaMismatch: see `infra.database.schema`.
    """
    from infra.database.schema import prepare

    prepare(engine)
