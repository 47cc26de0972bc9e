"""Open the database of a pipeline: its tables are made, and one pool serves the whole process."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from infra.database.connect import connect
from infra.database.errors import in_short, is_away
from infra.database.schema import create_tables
from infra.errors import Unavailable
from infra.settings import Places


def open_database(places: Places) -> Engine:
    """Open the pipeline's database, its tables made. One per process and URL.

    Raises:
        SchemaMismatch: the tables are of another release.
        Unavailable: it does not answer.
    """
    return _open(places.database)


@cache
def _open(url: str) -> Engine:
    database = connect(url)
    try:
        create_tables(database)
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        where = database.url.render_as_string(hide_password=True)
        raise Unavailable(f"the database {where} does not answer: {in_short(error)}; start it and try again") from error
    return database
