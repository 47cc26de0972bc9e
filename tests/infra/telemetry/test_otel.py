"""Spans reach a real OTLP receiver on loopback, hold no texts, and cost nothing where nobody asked for them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from infra.telemetry.otel import span, start_tracing, stop_tracing


class Collector(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    stop_tracing()
    server.shutdown()
    server.server_close()


def test_without_a_collector_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert start_tracing("test") is False
    with span("nothing") as current:
        assert current is None


def test_a_request_becomes_a_span_with_route_status_and_version(collector: Collector) -> None:
    from fastapi import FastAPI, Response
    from fastapi.testclient import TestClient

    from deploy.gateway.telemetry.tracing import TracingMiddleware

    app = FastAPI()
    app.add_middleware(TracingMiddleware)

    @app.post("/v1/things/{name}")
    def thing(name: str) -> Response:
        return Response("a secret answer", status_code=201, headers={"X-Ratchet-Version": "v1"})

    assert start_tracing("ratchet-gateway") is True
    with span("night", {"step": "ingest"}), span("inner"):
        pass
    assert TestClient(app).post("/v1/things/x", content="a secret question").status_code == 201
    stop_tracing()
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: dict[str, Any] = {}
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                spans |= {one.name: one for one in scope.spans}
    assert {"night", "inner", "POST /v1/things/{name}"} <= set(spans)
    assert spans["inner"].parent_span_id == spans["night"].span_id
    told = {a.key: a.value for a in spans["POST /v1/things/{name}"].attributes}
    assert told["http.response.status_code"].int_value == 201
    assert told["ratchet.version"].string_value == "v1"
    assert b"secret" not in b"".join(collector.bodies)
