"""Interactions as MLflow traces by its OTLP door, and what was said of them as assessments.

A trace's id is the hash of the interaction's, so that feedback that comes days later finds it, and so that a lot that
was sent twice after a crash is the same traces. Needs the extra `otel` for the protocol's messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.errors import Unavailable, UserError
from infra.sign_in import mlflow_login
from infra.telemetry.mlflow_refusals import deleted_experiment


@dataclass(frozen=True)
class Shown:
    """One interaction to be shown."""

    interaction_id: str
    messages: Sequence[Mapping[str, Any]]
    answer: str
    begun_ns: int
    """Nanoseconds since 1970."""
    ended_ns: int
    facts: Mapping[str, str] = field(default_factory=dict)
    """Version, tenant and the like: tags of the trace."""
    user: str | None = None
    session: str | None = None


@dataclass(frozen=True)
class Said:
    """One feedback to be shown."""

    interaction_id: str
    kind: str
    value: bool | float | str
    actor: str
    comment: str | None = None


def trace_id_of(interaction_id: str) -> bytes:
    """16 bytes that stand for the interaction."""
    return hashlib.sha256(interaction_id.encode()).digest()[:16]


def chosen(interaction_id: str, share: float) -> bool:
    """Whether an interaction belongs to the sample: always the same answer, whoever asks."""
    number = int.from_bytes(hashlib.sha256(b"sample\0" + interaction_id.encode()).digest()[:8], "big")
    return number < share * 2**64


class TraceSender:
    """Sends to one experiment of one MLflow server."""

    def __init__(self, url: str, experiment: str) -> None:
        self.url = url.rstrip("/")
        self.experiment = experiment
        self._experiment_id: str | None = None

    def show(self, lot: Sequence[Shown]) -> None:
        """Send a lot of interactions.

        Raises:
            Unavailable: MLflow did not take it; send the same again.
        """
        import httpx

        if not lot:
            return
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": self._experiment()}
        try:
            answer = httpx.post(
                f"{self.url}/v1/traces",
                content=otlp_request(lot),
                headers=headers,
                auth=mlflow_login(),
                timeout=30,
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow at {self.url} took no traces: {type(error).__name__}") from error
        if not answer.is_success:
            raise Unavailable(f"MLflow at {self.url} took no traces: HTTP {answer.status_code} {answer.text[:200]}")

    def say(self, said: Said) -> None:
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
                trace_id=f"tr-{trace_id_of(said.interaction_id).hex()}",
                name=said.kind,
                value=said.value,
                rationale=said.comment,
                source=AssessmentSource(source_type="HUMAN", source_id=said.actor),
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
                found = client.get_experiment_by_name(self.experiment)
                if found is not None and found.lifecycle_stage == "deleted":
                    raise deleted_experiment(self.experiment)
                self._experiment_id = str(found.experiment_id if found else client.create_experiment(self.experiment))
            except (MlflowException, RequestException, OSError) as error:
                raise Unavailable(f"MLflow at {self.url} does not answer: {str(error).splitlines()[0]}") from error
        return self._experiment_id


def otlp_request(lot: Sequence[Shown]) -> bytes:
    """The lot as an OTLP request of one-span traces."""
    try:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    except ImportError as error:
        raise UserError("traces.share asks for traces in MLflow; install the extra: pip install '.[otel]'") from error
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for one in lot:
        identity = trace_id_of(one.interaction_id)
        span = spans.add(
            trace_id=identity,
            span_id=identity[:8],
            name="chat",
            start_time_unix_nano=one.begun_ns,
            end_time_unix_nano=max(one.ended_ns, one.begun_ns + 1),
        )
        told = {
            "mlflow.spanType": json.dumps("CHAT_MODEL"),
            "mlflow.spanInputs": json.dumps({"messages": list(one.messages)}),
            "mlflow.spanOutputs": json.dumps(one.answer),
            "mlflow.trace.user": json.dumps(one.user or ""),
            "mlflow.trace.session": json.dumps(one.session or ""),
            "ratchet.interaction": json.dumps(one.interaction_id),
            **{f"ratchet.{name}": json.dumps(value) for name, value in one.facts.items()},
        }
        for name, value in told.items():
            span.attributes.add(key=name).value.string_value = value
    return bytes(request.SerializeToString())
