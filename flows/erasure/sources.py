"""Erase a person from the sources that a pipeline reads from: gateways' own databases, and MLflow servers."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from feedback.sources import gateway
from feedback.sources.landing import SourceSpec
from feedback.store.store import Store
from flows.config.pipeline import PipelineConfig
from infra.database.connect import connect
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.database.schema import create_tables
from infra.errors import Unavailable, UserError


def gateway_stores(config: PipelineConfig) -> dict[str, Store]:
    """Open the stores of gateways that have a database of their own, by the source that follows them.

    Raises:
        Unavailable: one does not answer.
    """
    stores = {}
    for spec in config.ingest.sources:
        options = spec.parsed() if spec.kind == "gateway" else None
        url = options.database_url if isinstance(options, gateway.Options) else None
        if url is not None:
            try:
                engine = connect(url)
                create_tables(engine)
            except SQLAlchemyError as error:
                holds = f"the database of source {spec.name} holds what its gateway was asked"
                if is_of_other_tables(error):
                    raise UserError(f"{holds}: {OTHER_TABLES} ({in_short(error)}); nothing was removed") from error
                if not is_away(error):
                    raise
                raise Unavailable(
                    f"{holds} and does not answer ({in_short(error)}); nothing was removed: forget again when it does"
                ) from error
            stores[spec.name] = Store(engine)
    return stores


def erase_traces(config: PipelineConfig, user: str | None) -> dict[str, int]:
    """Delete the person's traces on MLflow servers that this pipeline reads from; rows by source.

    Args:
        user: the id that applications send, which is all that these know; None: it is not known.
    """
    if user is None:
        return {}
    return {f"traces of source {spec.name}": _delete_traces(spec, user) for spec in _trace_sources(config)}


def out_of_reach(config: PipelineConfig, user: str | None) -> list[str]:
    """Say which sources could not be looked at, for they know people by their own ids."""
    names = [spec.name for spec in _trace_sources(config)] if user is None else []
    return [f"traces of source {name} (not looked for: give the id that applications send)" for name in names]


def _trace_sources(config: PipelineConfig) -> list[SourceSpec]:
    return [spec for spec in config.ingest.sources if spec.kind == "mlflow_traces"]


def _delete_traces(spec: SourceSpec, user: str) -> int:
    from feedback.sources import mlflow_traces

    options = spec.parsed()
    assert isinstance(options, mlflow_traces.Options)
    return mlflow_traces.delete_of_user(options, user)
