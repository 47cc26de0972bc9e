"""Version the SQL schema: create its tables, migrate them, and refuse those of another release.

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
from itertools import chain
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
    """Which revision a database has."""

    revision: str | None
    """None where none is written down."""
    kind: Literal["empty", "unversioned", "older", "current", "newer"]
    """What that is to this release; unversioned: tables as 0.1.0 made them, which kept no version."""


@dataclass(frozen=True)
class Difference:
    """One thing in which tables are not as they should be."""

    kind: str
    """Alembic's word for what would mend it."""
    description: str
    """For people."""


def head() -> str:
    """The newest revision, that of this release."""
    return _revisions()[-1]


def state_of(connection: Connection) -> SchemaState:
    """Read which revision a database has, and what that is to this release."""
    tables = set(inspect(connection).get_table_names())
    revision = None
    if VERSION_TABLE in tables:
        revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  a name of our own
    if revision is None:
        return SchemaState(None, "unversioned" if tables and tables & _first_tables().tables.keys() else "empty")
    if revision == head():
        return SchemaState(revision, "current")
    return SchemaState(revision, "older" if revision in _revisions() else "newer")


def check(database: Engine) -> None:
    """Check that the tables are those of this release.

    Raises:
        SchemaMismatch: they are not, or there are none.
    """
    with database.connect() as connection:
        state = state_of(connection)
    if state.kind != "current":
        raise SchemaMismatch(_mismatch(database, state))


def create_tables(database: Engine) -> None:
    """Create the tables of an empty database; check of any other that they are those of this release.

    Several processes may start on an empty database at once: one makes the tables, the others wait and find them.

    Raises:
        SchemaMismatch: the tables are of another release.
    """
    with database.connect() as connection:
        state = state_of(connection)
    if state.kind == "empty":
        with _exclusive(database) as connection:
            state = state_of(connection)
            if state.kind == "empty":
                _upgrade(connection)
                return
    if state.kind != "current":
        raise SchemaMismatch(_mismatch(database, state))


def pending(database: Engine) -> list[tuple[str, str]]:
    """List what `migrate` would run, as (revision, what it does); nothing is changed.

    Raises:
        SchemaMismatch: as `migrate`.
    """
    with database.connect() as connection:
        state = _migratable(database, connection)
    scripts = _scripts()
    todo = [name for name in _revisions() if state.revision is None or name > state.revision]
    return [(name, str(scripts.get_revision(name).doc)) for name in todo]


def migrate(database: Engine, on_step: Callable[[str, str], None] = lambda *_: None) -> None:
    """Bring the tables to this release, in one transaction: all of it or nothing. Harmless when they are there.

    Args:
        on_step: called with the revision and what it did, after each.

    Raises:
        SchemaMismatch: a newer release changed them, or they are not as 0.1.0 left them.
    """
    with _exclusive(database) as connection:
        if _migratable(database, connection).kind != "current":
            _upgrade(connection, on_step)


def differences(connection: Connection, tables: MetaData) -> list[Difference]:
    """List how the database's tables differ from `tables`. Other tables in the same database are not looked at."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def is_compared(item: Any, name: str | None, kind: str, reflected: bool, compared: Any) -> bool:
        return kind != "table" or name in tables.tables

    options = {"include_object": is_compared, "compare_type": True, "version_table": VERSION_TABLE}
    context = MigrationContext.configure(connection, opts=options)
    changes = compare_metadata(context, tables)
    single = chain.from_iterable(change if isinstance(change, list) else [change] for change in changes)
    return [_difference(*change) for change in single]


def _difference(kind: str, *parts: Any) -> Difference:
    if kind.endswith("_column"):
        description = f"{parts[1]}.{parts[2].name} {'is missing' if kind == 'add_column' else 'is unknown'}"
    elif kind.startswith("modify_"):
        description = f"{parts[1]}.{parts[2]}: {kind.removeprefix('modify_')} is {parts[4]}, expected {parts[5]}"
    else:
        named = parts[0].name or ", ".join(getattr(parts[0], "columns", {}).keys())
        missing = "is missing" if kind.startswith("add_") else "is unknown"
        description = f"{kind.partition('_')[2]} {named} of {getattr(parts[0], 'table', parts[0])} {missing}"
    return Difference(kind, description)


@contextmanager
def _exclusive(database: Engine) -> Iterator[Connection]:
    """A transaction that nobody else makes or changes tables beside."""
    with begin_write(database) as connection:
        if database.dialect.name == "postgresql":
            # However long others take, and however large the tables are: time limits are for serving.
            for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(text(f"SET LOCAL {limit} = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_TURN})"))
        yield connection


def _migratable(database: Engine, connection: Connection) -> SchemaState:
    state = state_of(connection)
    if state.kind == "newer":
        raise SchemaMismatch(_mismatch(database, state))
    if state.kind == "unversioned":
        wrong = [each.description for each in differences(connection, _first_tables()) if each.kind not in _MADE_GOOD]
        if wrong:
            raise SchemaMismatch(
                f"the tables of {_name(database)} keep no version and are not as Ratchet 0.1.0 made them: "
                f"{'; '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}; restore them from a backup of 0.1.0"
            )
    return state


def _upgrade(connection: Connection, on_step: Callable[[str, str], None] = lambda *_: None) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    scripts = _scripts()

    def steps(revision: Any, _: Any) -> Any:
        return scripts._upgrade_revs(head(), revision)

    def applied(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
        name = str(step.up_revision_id)
        on_step(name, str(scripts.get_revision(name).doc))

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


def _mismatch(database: Engine, state: SchemaState) -> str:
    name = _name(database)
    if state.kind == "empty":
        return f"{name} holds no tables of Ratchet; check the address, or start the pipeline that it belongs to first"
    if state.kind == "newer":
        return (
            f"the tables of {name} have version {state.revision}, which this release of Ratchet, made for {head()}, "
            "does not know: a newer one changed them; use that one, or restore the backup made before it"
        )
    version = f"version {state.revision}" if state.revision else "no version, as of Ratchet 0.1.0"
    return (
        f"the tables of {name} have {version}, this release of Ratchet needs {head()}: stop what runs, make a backup "
        "and run `ratchet migrate`"
    )


def _name(database: Engine) -> str:
    return f"database {database.url.render_as_string(hide_password=True)}"
