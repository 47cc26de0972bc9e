"""The database of a pipeline, opened by a task that needs it."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Engine

from infra.database import connect, create_tables
from infra.settings import Places


def database(places: Places) -> Engine:
    """An engine for the pipeline's database, its tables made. One per process and URL.

    Raises:
        SchemaMismatch: the tables are of another release.
    """
    return _open(places.database)


@cache
def _open(url: str) -> Engine:
    engine = connect(url)
    create_tables(engine)
    return engine
