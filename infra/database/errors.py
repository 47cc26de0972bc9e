"""Classify database errors by code: it is away, its tables are not ours, or it refuses this row.

Drivers raise the same class for "disk full" and "no such column"; only the first of them passes by itself.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from infra.errors import Unavailable

_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,  # a file system that went read-only after an error of the disk
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_POSTGRES_AWAY = (
    "08",  # connection
    "28",  # sign-in: a password that is being changed
    "53",  # resources: disk, memory, connections
    "57P",  # shut down, crashed, starting up
    "58",  # its operating system
    "57014",  # statement_timeout
    "55P03",  # lock_timeout
    "25P03",  # idle in a transaction for too long
    "25P04",
    "25006",  # a standby: the writer moved elsewhere
    "40001",
    "40P01",  # a deadlock, whose victim may come again
)
_POSTGRES_OTHER_TABLES = ("42", "3F", "3D")
_SQLITE_OTHER_TABLES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})
OTHER_TABLES = "the database's tables are not those of this release; run `ratchet migrate`, then start this again"
"""What people are told who can do nothing else about it."""


def is_away(error: BaseException) -> bool:
    """Whether an error says that the database cannot be reached or written now, and may be later as it is."""
    if isinstance(error, PoolTimeout | Unavailable | ConnectionError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code, origin = _code(error)
    if isinstance(code, int):
        return code in _SQLITE_AWAY
    if code:
        return code.startswith(_POSTGRES_AWAY)
    # Without a code nothing was said by a server: the driver itself did not get through to one.
    return isinstance(error, OperationalError | InterfaceError) and not isinstance(origin, sqlite3.Error)


def is_of_other_tables(error: BaseException) -> bool:
    """Whether a table, column or right is missing: our mistake, or an upgrade half done; no waiting mends it."""
    code, _ = _code(error)
    if isinstance(code, int):
        return code in _SQLITE_OTHER_TABLES
    return bool(code) and str(code).startswith(_POSTGRES_OTHER_TABLES)


def is_rows_own(error: BaseException) -> bool:
    """Whether the database (or its driver) refuses what one row holds: others of its lot may go in."""
    if is_away(error) or is_of_other_tables(error):
        return False
    if isinstance(error, DBAPIError):
        return isinstance(error, IntegrityError | DataError) or _code(error)[0] == sqlite3.SQLITE_TOOBIG
    return isinstance(error, StatementError | ValueError | TypeError | ArithmeticError)


def in_short(error: BaseException) -> str:
    """Shorten an error to its first line: what follows may hold a whole statement with people's texts."""
    message = str(getattr(error, "orig", None) or error).strip()
    return (message.splitlines() or [type(error).__name__])[0][:500]


def _code(error: BaseException) -> tuple[int | str | None, BaseException | None]:
    """SQLite's primary result code or a server's SQLSTATE, and the driver's own error."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    number = getattr(origin, "sqlite_errorcode", None)
    if isinstance(number, int):
        return number & 0xFF, origin
    state = getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None)
    return (str(state) if state else None), origin
