"""Read any SQL database by query: whatever SQLAlchemy has a driver for.

The query's rows are read in the order of a growing column, from where the last run stopped. The URL, which may hold a
password, comes from the environment.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from pydantic import Field, JsonValue
from sqlalchemy import Engine, bindparam, create_engine, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from feedback.formats import Cells
from feedback.sources.files import add_row
from feedback.sources.landing import Lot
from feedback.sources.mapping import RowOptions
from infra.database.connect import now
from infra.errors import UserError
from infra.settings import secret

log = logging.getLogger(__name__)


class Options(RowOptions):
    """Options of an SQL source."""

    url_env: str = Field(min_length=1)
    """Name of the environment variable that holds the database's SQLAlchemy URL."""
    query: str = Field(min_length=1)
    """One SELECT. Its columns are named by `mapping`, or have the names of a dialect."""
    key: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Column of the query that is unique and grows, such as an id: reading goes on after its last value."""
    reread: int = Field(default=1_000, ge=0)
    """How far below its last value an integer key is read again, for rows that were written late; known ones are
    recognised."""
    lot: int = Field(default=1_000, ge=1)
    """Rows in one transaction."""


def read(options: Options, watermark: JsonValue | None) -> Iterator[Lot]:
    """Read rows with a key after the remembered one, in order.

    Raises:
        UserError: the URL is missing or cannot be understood, or the database refuses the query.
    """
    last = _unpacked(watermark["after"]) if isinstance(watermark, dict) and "after" in watermark else None
    database = _connected(secret(options.url_env), options)
    try:
        if last is not None and _gone_back(database, options, last):
            last = None
        after = last - options.reread if isinstance(last, int) else last
        while True:
            rows = _rows(database, options, after)
            if not rows:
                return
            lot, at = (
                Lot(watermark=None, tenant=options.tenant),
                now(),
            )  # one time for all, so that it tells nothing of pace
            for row in rows:
                key = row[options.key]
                cells = {name: _plain(value) for name, value in row.items()}
                add_row(lot, f"{options.key}={key}", cells, options, source="sql", at=at)
            after = rows[-1][options.key]
            done = isinstance(after, int) and isinstance(last, int) and after <= last
            lot.watermark = {"after": _packed(last if done else after)}
            yield lot
            if len(rows) < options.lot:
                return
    finally:
        database.dispose()


def _connected(url: str, options: Options) -> Engine:
    try:
        return create_engine(url, hide_parameters=True)
    except (ArgumentError, ImportError) as error:
        # The URL itself may hold a password and is not shown.
        raise UserError(
            f"the URL in {options.url_env} is no SQLAlchemy URL of an installed driver ({type(error).__name__}); "
            "expected for example postgresql+psycopg://user@host/database"
        ) from None


def _gone_back(database: Engine, options: Options, last: Any) -> bool:
    """Whether the table ends before the key that was read last: it was restored from a backup, say, and gives the same
    keys out again. It is then read from its beginning; rows that are here already are recognised."""
    back = not _rows(database, options, last, since=True) and bool(_rows(database, options, None))
    if back:
        log.warning(
            "the database in %s has no row from %s = %s on, up to which it was read: it was restored from a backup, or "
            "rows were deleted; it is read from its beginning",
            *(options.url_env, options.key, last),
        )
    return back


def _rows(database: Engine, options: Options, after: Any, *, since: bool = False) -> list[Cells]:
    where = "" if after is None else f"WHERE q.{options.key} {'>=' if since else '>'} :after "
    # The key's name is checked by its pattern; the query is the operator's own.
    statement = text(
        f"SELECT * FROM ({options.query.rstrip().rstrip(';')}) AS q {where}ORDER BY q.{options.key} LIMIT :lot"  # noqa: S608
    ).bindparams(bindparam("lot", options.lot))
    if after is not None:
        statement = statement.bindparams(bindparam("after", after))
    try:
        with database.connect() as connection:
            rows = [dict(row) for row in connection.execute(statement).mappings()]
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise UserError(f"the database in {options.url_env} refuses the query: {why}; mend `query` or `key`") from None
    if rows and options.key not in rows[0]:
        raise UserError(f"the query gives no column {options.key!r}; name a unique, growing one as `key`")
    if any(row[options.key] is None for row in rows):
        raise UserError(f"column {options.key!r} is null in some rows; name a unique, growing one as `key`")
    return rows


def _plain(value: Any) -> Any:
    """A cell as the mapping reads it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8")
    return str(value) if isinstance(value, UUID) else value


def _packed(value: Any) -> JsonValue:
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    return cast("JsonValue", str(value) if isinstance(value, UUID) else value)


def _unpacked(value: JsonValue) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, text_of),) = value.items()
    if kind == "time":
        return datetime.fromisoformat(str(text_of))
    return date.fromisoformat(str(text_of)) if kind == "date" else Decimal(str(text_of))
