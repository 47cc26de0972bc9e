"""Send OpenTelemetry traces of gateway and flows, for those who ask for them by the standard variables.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 ratchet serve gateway        # needs the extra `otel`

Without the variable nothing is imported and a span costs a function call. Spans carry names, versions and durations,
never what people wrote.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from infra.errors import UserError

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Attributes = Mapping[str, str | int | float | bool]
_tracers: list[Any] = []


def start_tracing(service: str) -> bool:
    """Send this process's spans to the collector that the environment names; False when it names none.

    Raises:
        UserError: it names one and the extra `otel` is not installed.
    """
    if not any(os.environ.get(name) for name in VARIABLES):
        return False
    if _tracers:
        return True
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UserError(
            f"{VARIABLES[0]} asks for traces, but {error.name} is not installed; pip install '.[otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    # Batches are sent on a thread of their own: a collector that is away slows no request.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracers.extend([provider.get_tracer("ratchet"), provider])
    return True


def stop_tracing() -> None:
    """Send what waits, and stop."""
    if _tracers:
        provider = _tracers[1]
        _tracers.clear()
        provider.shutdown()


@contextmanager
def span(name: str, attributes: Attributes | None = None) -> Iterator[Any]:
    """A span around the block; yields it (or None) so that attributes known later can be set."""
    if not _tracers:
        yield None
        return
    with _tracers[0].start_as_current_span(name, attributes=dict(attributes or {})) as started:
        yield started
