"""Limit how long a database may keep its callers waiting: two profiles of timeouts.

Three things can keep a caller: a lock that somebody holds, a server that works too long, and one that says nothing at
all (frozen, or cut off by a network that drops packets). The first two the server ends itself, if told to. The third it
cannot, and a kernel that still acknowledges hides it from TCP, so our side of the connection has a limit of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any

from pydantic import Field
from sqlalchemy import URL, Engine, event

from infra.settings import Config


class Timeouts(Config):
    """Longest waits of one kind of caller, in seconds."""

    connect: float = Field(gt=0)
    """For a connection."""
    lock: float = Field(gt=0)
    """For a lock that another transaction holds (SQLite: for its one write lock)."""
    statement: float = Field(gt=0)
    """For one statement."""
    idle_in_transaction: float = Field(gt=0)
    """Between two statements of one transaction, before the server gives its locks to others."""
    silence: float = Field(gt=0)
    """For any sign of a server; longer than `statement`, so that a server that lives says first what is wrong."""
    pool: float = Field(gt=0)
    """For a free connection of our own pool."""
    unacknowledged: float = Field(default=10.0, gt=0)
    """For the other machine's kernel: what was sent is acknowledged within it, or the connection is dead."""


BATCH = Timeouts(
    connect=5,
    lock=30 * 60,
    statement=60 * 60,
    idle_in_transaction=6 * 3600,
    silence=61 * 60,
    pool=60,
    unacknowledged=60,
)
"""Ingest, forget, migrations, the command line: what they do may take long, and waiting is better than failing."""


def serving(seconds: float) -> Timeouts:
    """Make the profile of a gateway: nobody's answer waits for the database much longer than `seconds`."""
    return Timeouts(
        connect=seconds,
        lock=seconds,
        statement=seconds,
        idle_in_transaction=10 * seconds,
        silence=1.5 * seconds + 0.5,
        pool=seconds,
        unacknowledged=max(1.0, seconds),
    )


def driver_arguments(url: URL, timeouts: Timeouts) -> dict[str, int]:
    """Make libpq's arguments of one connection; what the URL says itself stands."""
    if not _is_libpq(url):
        return {}
    arguments = {
        # libpq counts in whole seconds and takes 1 for 2.
        "connect_timeout": max(2, math.ceil(timeouts.connect)),
        "keepalives": 1,
        "keepalives_idle": max(1, math.ceil(timeouts.unacknowledged / 2)),
        "keepalives_interval": max(1, math.ceil(timeouts.unacknowledged / 6)),
        "keepalives_count": 3,
        "tcp_user_timeout": math.ceil(timeouts.unacknowledged * 1000),
    }
    return {name: value for name, value in arguments.items() if name not in url.query}


def apply_timeouts(database: Engine, timeouts: Timeouts) -> None:
    """Have every new connection to a Postgres database keep to `timeouts`."""
    stated = str(database.url.query.get("options", ""))
    limits = {
        "lock_timeout": timeouts.lock,
        "statement_timeout": timeouts.statement,
        "idle_in_transaction_session_timeout": timeouts.idle_in_transaction,
    }
    # By SET and not by the startup packet's `options`, which PgBouncer refuses.
    settings = ", ".join(
        f"set_config('{name}', '{max(1, round(seconds * 1000))}', false)"
        for name, seconds in limits.items()
        if name not in stated
    )

    if settings:

        @event.listens_for(database, "connect")
        def _limit(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"SELECT {settings}")
            cursor.close()
            connection.commit()  # a SET of a transaction that is rolled back never was

    if database.dialect.driver == "psycopg":
        _limit_silence(database, timeouts.silence)


def _limit_silence(database: Engine, seconds: float) -> None:
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        """A connection whose every exchange with the server ends in `seconds`, by an answer or by an error."""

        def wait(self, gen: Generator[Any, Any, Any], *args: Any, **named: Any) -> Any:
            return super().wait(self._impatiently(gen), *args, **named)

        def _impatiently(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            end = time.monotonic() + seconds
            try:
                state = next(gen)
                while True:
                    ready = yield state
                    if ready:
                        end = time.monotonic() + seconds
                    elif time.monotonic() >= end:
                        self.pgconn.finish()  # whatever it says later, nobody listens
                        raise psycopg.OperationalError(f"the server has said nothing for {seconds:g} s")
                    state = gen.send(ready)
            except StopIteration as end_of_it:
                return end_of_it.value

    @event.listens_for(database, "do_connect")
    def _connect(dialect: Any, _: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        return Impatient.connect(*arguments, **named)


def _is_libpq(url: URL) -> bool:
    return url.get_backend_name() == "postgresql" and url.get_driver_name().startswith("psycopg")
