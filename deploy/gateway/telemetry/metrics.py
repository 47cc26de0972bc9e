"""Count and time requests for Prometheus; in a registry of its own, so that several gateways fit in one process."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class MetricsMiddleware:
    """Counts requests and times them up to the last byte. Plain ASGI: it stands in no stream's way."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), "500"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            name = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(name, status).inc()
            self._metrics.seconds.labels(name).observe(time.monotonic() - started)


class Metrics:
    """Counts and times of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ratchet_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "ratchet_request_seconds", "Time until the last byte of an answer", ["route"], registry=self.registry
        )
        self.tokens = Counter("ratchet_tokens", "Tokens by direction", ["direction"], registry=self.registry)
        self.answers = Counter(
            "ratchet_answers",
            "Answers by tenant, version and arm",
            ["tenant", "version", "arm"],
            registry=self.registry,
        )
        self.feedback = Counter("ratchet_feedback", "Feedback by kind and receipt", ["kind", "status"],
                                registry=self.registry)  # fmt: skip
        self.waiting = Gauge("ratchet_capture_waiting", "Interactions that wait for a commit", registry=self.registry)
        self.spooled = Gauge("ratchet_capture_spooled_lots", "Lots of interactions that wait for the database",
                             registry=self.registry)  # fmt: skip
        self.shadows_dropped = Gauge("ratchet_shadows_dropped", "Copies for a version in shadow not made: too busy",
                                     registry=self.registry)  # fmt: skip
        self.ledger_seq = Gauge("ratchet_ledger_seq", "Ledger line that routing follows", ["tenant"],
                                registry=self.registry)  # fmt: skip
        self.routing_age = Gauge("ratchet_routing_age_seconds", "Time since ledger and leases were last read whole",
                                 registry=self.registry)  # fmt: skip
        self.ledger_unread = Gauge("ratchet_ledger_unread", "1 where a tenant's ledger cannot be followed to its end",
                                   ["tenant"], registry=self.registry)  # fmt: skip
        self.database_away = Gauge("ratchet_database_away", "1 while answers are kept in the spool",
                                   registry=self.registry)  # fmt: skip

    def render(self) -> bytes:
        """Write the text Prometheus reads."""
        return generate_latest(self.registry)
