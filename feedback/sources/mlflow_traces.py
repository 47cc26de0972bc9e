"""Read MLflow traces with the assessments that people left on them: feedback and expectations.

A trace is an interaction; each assessment of a person is feedback on it. Assessments come later than their trace, so
traces of the last `lookback_hours` are looked at again each time; what is known already is recognised by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field, JsonValue

from feedback.formats import Cells
from feedback.formats.chat import answer, conversation, scored
from feedback.formats.timestamps import event_time_of
from feedback.sources.files import add_row
from feedback.sources.landing import RAW_CHARS, Lot, Reject
from feedback.sources.mapping import EVERY_COLUMN, RowOptions
from infra.errors import UserError

_PAGE = 100


class Options(RowOptions):
    """Options of a source of MLflow traces."""

    tracking_uri: str | None = None
    """MLflow server or store; None: as MLFLOW_TRACKING_URI says."""
    experiments: tuple[str, ...] = Field(min_length=1)
    """Names of the experiments whose traces are read."""
    people_only: bool = True
    """Whether only assessments of source type HUMAN count; judges' and code's verdicts are not what people said."""
    lookback_hours: float = Field(default=72.0, ge=0)
    """How long after a trace assessments of it may still come."""
    version_tag: str = "model_version"
    """Trace tag that names the model version."""


def read(options: Options, watermark: JsonValue | None) -> Iterator[Lot]:
    """Traces since the watermark, those of the lookback again, oldest first.

    Raises:
        UserError: an experiment does not exist, or the server does not answer.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(options.tracking_uri)
    last = int(watermark["timestamp_ms"]) if isinstance(watermark, dict) else 0  # type: ignore[arg-type]
    since = max(0, last - int(options.lookback_hours * 3_600_000))
    try:
        experiments = {name: client.get_experiment_by_name(name) for name in options.experiments}
    except MlflowException as error:
        raise UserError(f"MLflow does not answer: {error}; mend `tracking_uri`") from None
    unknown = [name for name, experiment in experiments.items() if experiment is None]
    if unknown:
        raise UserError(f"MLflow has no experiment {unknown[0]!r}; mend `experiments`")
    locations = [experiment.experiment_id for experiment in experiments.values() if experiment is not None]
    token: str | None = None
    while True:
        page = client.search_traces(
            locations=locations,
            filter_string=f"trace.timestamp_ms > {since - 1}",
            order_by=["timestamp_ms ASC"],
            max_results=_PAGE,
            page_token=token,
            include_spans=True,
        )
        lot = Lot(watermark=None, tenant=options.tenant)
        for trace in page:
            last = max(last, int(trace.info.request_time))
            _add(lot, trace, options)
        lot.watermark = {"timestamp_ms": last}
        if page:
            yield lot
        token = page.token
        if not token:
            return


ERASED = "traces"
"""What `erase` deletes."""


def erase(options: Options, user: str) -> int:
    """Delete every trace of a user (by the id that applications send) from the experiments. Returns how many."""
    from mlflow import MlflowClient

    client = MlflowClient(options.tracking_uri)
    removed = 0
    for name in options.experiments:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            continue
        quoted = user.replace("'", "''")
        while page := client.search_traces(
            locations=[experiment.experiment_id],
            filter_string=f"metadata.`mlflow.trace.user` = '{quoted}'",
            max_results=_PAGE,
            include_spans=False,
        ):
            ids = [trace.info.trace_id for trace in page]
            removed += client.delete_traces(experiment.experiment_id, trace_ids=ids)
    return removed


def _add(lot: Lot, trace: Any, options: Options) -> None:
    """The events of one trace, or a reject."""
    info = trace.info
    assessments = [a for a in info.assessments or [] if _counts(a, options)]
    mapped = options.model_copy(update={"mapping": EVERY_COLUMN})
    try:
        at = event_time_of(info.request_time / 1000)
        base = _exchange(trace, options)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raw = str(info.request_preview)[:RAW_CHARS]
        lot.rejects.append(Reject(info.trace_id, "bad-trace", f"{type(error).__name__}: {error}", raw))
        return
    rows = [{**base, **_word(a, options.rating_scale)} for a in assessments] or [base]
    for number, row in enumerate(rows):
        add_row(lot, f"{info.trace_id}:{number}", row, mapped, source="mlflow_traces", at=at)


def _exchange(trace: Any, options: Options) -> Cells:
    info, metadata, tags = trace.info, trace.info.trace_metadata or {}, trace.info.tags or {}
    request, response = trace.data.request, trace.data.response
    return {
        "interaction_id": info.client_request_id or info.trace_id,
        "messages": conversation(request if request is not None else info.request_preview),
        "answer": answer(response if response is not None else info.response_preview),
        "user": metadata.get("mlflow.trace.user"),
        "session": metadata.get("mlflow.trace.session"),
        "version": tags.get(options.version_tag) or metadata.get("mlflow.modelId"),
        "created_at": info.request_time / 1000,
    }


def _counts(assessment: Any, options: Options) -> bool:
    giver = getattr(assessment.source, "source_type", None)
    return assessment.valid is not False and (not options.people_only or giver == "HUMAN")


def _word(assessment: Any, scale: float) -> Cells:
    """What an assessment says, as cells of the mapping."""
    if assessment.expectation is not None:
        value = assessment.expectation.value
        cells: Cells = {"reference": answer(value) if isinstance(value, str | dict | list) else str(value)}
    else:
        cells = scored(assessment.name, assessment.feedback.value if assessment.feedback else None, scale=scale)
    return {
        **cells,
        "event_id": assessment.assessment_id,
        "actor": assessment.source.source_id if assessment.source else None,
        "comment": assessment.rationale,
        "created_at": (assessment.last_update_time_ms or assessment.create_time_ms or 0) / 1000 or None,
    }
