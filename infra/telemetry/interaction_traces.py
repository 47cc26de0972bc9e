"""Send interactions to MLflow as traces (OTLP), and their feedback as assessments.

A trace's id is the hash of the interaction's, so that feedback that comes days later finds it, and so that a batch that
was sent twice after a crash is the same traces. Needs the extra `otel` for the protocol's messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from infra.errors import Unavailable, UserError
from infra.sign_in import mlflow_login
from infra.telemetry.mlflow_refusals import deleted_experiment


@dataclass(frozen=True)
class InteractionTrace:
    """One interaction as MLflow shows it."""

    interaction_id: str
    messages: Sequence[JsonValue]
    answer: str
    begun_ns: int
    """Nanoseconds since 1970."""
    ended_ns: int
    tags: Mapping[str, str] = field(default_factory=dict)
    """Version, tenant and the like."""
    user: str | None = None
    session: str | None = None


@dataclass(frozen=True)
class Assessment:
    """One feedback as MLflow shows it."""

    interaction_id: str
    kind: str
    value: bool | float | str
    actor: str
    comment: str | None = None


def trace_id_of(interaction_id: str) -> bytes:
    """Hash an interaction's id to the 16 bytes of its trace's id."""
    return hashlib.sha256(interaction_id.encode()).digest()[:16]


def is_sampled(interaction_id: str, share: float) -> bool:
    """Whether an interaction belongs to the sample: always the same answer, whoever asks."""
    number = int.from_bytes(hashlib.sha256(b"sample\0" + interaction_id.encode()).digest()[:8], "big")
    return number < share * 2**64


class TraceSender:
    """Sends to one experiment of one MLflow server."""

    def __init__(self, url: str, experiment: str) -> None:
        self.url = url.rstrip("/")
        self.experiment = experiment
        self._experiment_id: str | None = None

    def send(self, traces: Sequence[InteractionTrace]) -> None:
        """Send interactions.

        Raises:
            Unavailable: MLflow did not take it; send the same again.
        """
        import httpx

        if not traces:
            return
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": self._experiment()}
        try:
            answer = httpx.post(
                f"{self.url}/v1/traces",
                content=otlp_request(traces),
                headers=headers,
                auth=mlflow_login(),
                timeout=30,
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self.url} took no traces: {type(error).__name__}") from error
        if not answer.is_success:
            raise Unavailable(f"MLflow at {self.url} took no traces: HTTP {answer.status_code} {answer.text[:200]}")

    def assess(self, assessment: Assessment) -> None:
        """Write one feedback on its trace.

        Raises:
            Unavailable: MLflow did not take it.
        """
        import mlflow
        from mlflow.entities import AssessmentSource
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        mlflow.set_tracking_uri(self.url)
        try:
            mlflow.log_feedback(
                trace_id=f"tr-{trace_id_of(assessment.interaction_id).hex()}",
                name=assessment.kind,
                value=assessment.value,
                rationale=assessment.comment,
                source=AssessmentSource(source_type="HUMAN", source_id=assessment.actor),
            )
        except (MlflowException, RequestException, OSError) as error:
            raise Unavailable(f"MLflow at {self.url} took no assessment: {str(error).splitlines()[0]}") from error

    def _experiment(self) -> str:
        if self._experiment_id is None:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
            from requests.exceptions import RequestException

            try:
                client = MlflowClient(self.url)
                experiment = client.get_experiment_by_name(self.experiment)
                if experiment is not None and experiment.lifecycle_stage == "deleted":
                    raise deleted_experiment(self.experiment)
                made = experiment.experiment_id if experiment else client.create_experiment(self.experiment)
                self._experiment_id = str(made)
            except (MlflowException, RequestException, OSError) as error:
                raise Unavailable(f"MLflow at {self.url} does not answer: {str(error).splitlines()[0]}") from error
        return self._experiment_id


def otlp_request(traces: Sequence[InteractionTrace]) -> bytes:
    """Encode traces as an OTLP request, each of one span."""
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError as error:
        raise UserError("traces.share asks for traces in MLflow; install the extra: pip install '.[otel]'") from error
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for trace in traces:
        identity = trace_id_of(trace.interaction_id)
        span = spans.add(
            trace_id=identity,
            span_id=identity[:8],
            name="chat",
            start_time_unix_nano=trace.begun_ns,
            end_time_unix_nano=max(trace.ended_ns, trace.begun_ns + 1),
        )
        attributes = {
            "mlflow.spanType": json.dumps("CHAT_MODEL"),
            "mlflow.spanInputs": json.dumps({"messages": list(trace.messages)}),
            "mlflow.spanOutputs": json.dumps(trace.answer),
            "mlflow.trace.user": json.dumps(trace.user or ""),
            "mlflow.trace.session": json.dumps(trace.session or ""),
            "ratchet.interaction": json.dumps(trace.interaction_id),
            **{f"ratchet.{name}": json.dumps(value) for name, value in trace.tags.items()},
        }
        for name, value in attributes.items():
            span.attributes.add(key=name).value.string_value = value
    return bytes(request.SerializeToString())
