"""Connect to the SQL database of what processes must agree on: SQLite (WAL) by default, Postgres by URL.

Every owner declares its tables on `metadata` in its own file; how they are made and changed is in
infra/database/schema.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, MetaData, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.types import BigInteger, TypeDecorator

from infra.database.timeouts import BATCH, Timeouts, apply_timeouts, driver_arguments
from infra.errors import UserError
from infra.settings import secret

metadata = MetaData()


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes kept as integer microseconds since 1970 in UTC: the same order and value on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone")
        delta = value - datetime(1970, 1, 1, tzinfo=UTC)
        return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)


def connect(url: str, timeouts: Timeouts = BATCH) -> Engine:
    """Connect to `url`. SQLite gets WAL, full durability at commit, and waits up to 30 s for a lock.

    ``env:NAME`` stands for the URL in that environment variable: job files then hold no password.

    Args:
        timeouts: how long the database may keep its callers (see `infra.database.timeouts`).

    Raises:
        UserError: the URL cannot be understood, or the variable is not set.
    """
    if url.startswith("env:"):
        url = secret(url.removeprefix("env:"))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UserError(f"database_url {url!r} is not a SQLAlchemy URL, such as sqlite:///x.db; mend it") from error
    if parsed.get_backend_name() != "sqlite":
        # Parameters are hidden everywhere: they hold what users said, and errors end in logs.
        # A server that does not answer at all must cost a caller seconds, not the system's minutes.
        database = create_engine(
            parsed,
            pool_pre_ping=True,
            pool_timeout=timeouts.pool,
            connect_args=driver_arguments(parsed, timeouts),
            hide_parameters=True,
        )
        if parsed.get_backend_name() == "postgresql":
            apply_timeouts(database, timeouts)
        return database
    file = Path(parsed.database) if parsed.database and parsed.database != ":memory:" else None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    patience = min(30.0, timeouts.lock)
    database = create_engine(
        parsed, connect_args={"timeout": patience, "check_same_thread": False}, hide_parameters=True
    )

    @event.listens_for(database, "connect")
    def _configure(connection: Any, _: Any) -> None:
        # We say BEGIN ourselves (below): the driver's implicit begin would upgrade read locks to write locks late,
        # which fails with "database is locked" instead of waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        fresh = file is not None and (not file.exists() or not file.stat().st_size)
        busy = f"busy_timeout={round(patience * 1000)}"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", busy, "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        if fresh and file is not None and file.exists():
            file.chmod(0o600)  # it holds what users said; its log gets the same
        cursor.close()

    @event.listens_for(database, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("ratchet_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return database


@contextmanager
def begin_write(database: Engine) -> Iterator[Connection]:
    """Begin a transaction that takes the write lock at its start (SQLite) and commits at the end of the block."""
    with database.connect().execution_options(ratchet_write=True) as connection, connection.begin():
        yield connection
