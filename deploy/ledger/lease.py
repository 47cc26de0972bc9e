"""Take, renew and check leases on database time: who may act, and whether the watch over a canary is alive.

The controller renews a tenant's canary lease while it watches. When it stops, the lease runs out and gateways route
everyone to the champion. Only the database's clock counts, so machines whose clocks differ agree.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Engine, String, Table, delete, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from infra.database.connect import begin_write, metadata

leases = Table(
    "leases",
    metadata,
    Column("name", String(300), primary_key=True),
    Column("holder", String(300), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)


def canary_lease(tenant: str) -> str:
    """Name the lease that keeps a tenant's canary open."""
    return f"canary/{tenant}"


def renew(database: Engine, name: str, holder: str, seconds: float) -> bool:
    """Take or prolong a lease; False when another holder's has not run out."""
    try:
        with begin_write(database) as connection:
            return renew_in(connection, name, holder, seconds)
    except IntegrityError:  # two holders made the first row at once; the other one was faster
        return False


def renew_in(connection: Connection, name: str, holder: str, seconds: float) -> bool:
    """Like `renew`, in the caller's transaction."""
    at = database_us(connection)
    until = at + int(seconds * 1_000_000)
    taken = connection.execute(
        update(leases)
        .where(leases.c.name == name, or_(leases.c.holder == holder, leases.c.expires_us <= at))
        .values(holder=holder, expires_us=until)
    )
    if taken.rowcount == 1:
        return True
    if connection.execute(select(leases.c.name).where(leases.c.name == name)).first() is not None:
        return False
    connection.execute(insert(leases).values(name=name, holder=holder, expires_us=until))
    return True


def release(database: Engine, name: str, holder: str) -> None:
    """Give a lease back before it runs out."""
    with begin_write(database) as connection:
        connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def seconds_left(database: Engine, name: str) -> float:
    """Return how long the lease still runs by the database's clock; 0 when it ran out or never was."""
    with database.connect() as connection:
        return seconds_left_in(connection, name)


def seconds_left_in(connection: Connection, name: str) -> float:
    """Like `seconds_left`, in the caller's transaction."""
    until = connection.scalar(select(leases.c.expires_us).where(leases.c.name == name))
    if until is None:
        return 0.0
    return float(max(0.0, (int(until) - database_us(connection)) / 1_000_000))


def all_seconds_left(database: Engine) -> dict[str, float]:
    """List how long each lease still runs, by name, for those that have not run out."""
    with database.connect() as connection:
        at = database_us(connection)
        rows = connection.execute(select(leases.c.name, leases.c.expires_us).where(leases.c.expires_us > at))
        # A row that somebody spoilt is a lease that ran out; it must not end the other tenants' ones.
        return {row.name: (row.expires_us - at) / 1_000_000 for row in rows if isinstance(row.expires_us, int)}


def lease_valid(database: Engine, tenant: str) -> bool:
    """Check whether the tenant's canary is watched right now; if not, everyone gets the champion."""
    return seconds_left(database, canary_lease(tenant)) > 0.0


def holder_of(database: Engine, name: str) -> str | None:
    """Return who holds the lease now; None when nobody does."""
    with database.connect() as connection:
        at = database_us(connection)
        return connection.scalar(select(leases.c.holder).where(leases.c.name == name, leases.c.expires_us > at))


def database_us(connection: Connection) -> int:
    """Return the database's clock, in microseconds since 1970."""
    if connection.dialect.name == "sqlite":
        # Milliseconds are all SQLite promises; "now" stands still within one statement, not one transaction.
        statement = "SELECT CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"
    else:
        statement = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
    return int(connection.scalar(text(statement)) or 0)
