"""The database of a pipeline, opened by a task that needs it."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from sqlalchemy import Engine

from infra.database import connect, create_tables
from infra.settings import Places


def database(places: Places) -> Engine:
    """An engine for the pipeline's database, its tables made. One per process and URL."""
    return _open(places.database)


@cache
def _open(url: str) -> Engine:
    # Imported for the tables they declare: what is not imported is not made.
    for owner in (
        "deploy.keys",
        "deploy.lease",
        "deploy.ledger",
        "deploy.rescore",
        "evaluation.noise",
        "feedback.quarantine",
        "feedback.sources.landing",
        "infra.alerts",
    ):
        import_module(owner)
    engine = connect(url)
    create_tables(engine)
    return engine
