"""Receive alerts by webhook: a small HTTP server that checks each signature and keeps what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flows.demo.facts import ReceivedAlert
from infra.alerts.signature import signature_holds
from infra.database.connect import now


class Receiver(ThreadingHTTPServer):
    """Listens on loopback; `received` holds each alert once, in the order of arrival. Use `open_receiver`."""

    daemon_threads = True

    def __init__(self, host: str, port: int, secret: str) -> None:
        super().__init__((host, port), _Handler)
        self.secret = secret
        self._received: dict[str, ReceivedAlert] = {}
        self._arrived = threading.Condition()

    @property
    def received(self) -> list[ReceivedAlert]:
        """Every alert so far."""
        with self._arrived:
            return list(self._received.values())

    def wait_for(self, kind: str, *, after: int = 0, seconds: float) -> ReceivedAlert | None:
        """The first alert of that kind beyond the first `after` of all; None when none comes in time."""

        def first() -> ReceivedAlert | None:
            return next((alert for alert in list(self._received.values())[after:] if alert.kind == kind), None)

        with self._arrived:
            self._arrived.wait_for(lambda: first() is not None, timeout=seconds)
            return first()

    def keep(self, delivery: str, alert: ReceivedAlert) -> None:
        """Keep an alert, once by its delivery id: senders repeat what they are not sure of."""
        with self._arrived:
            self._received.setdefault(delivery, alert)
            self._arrived.notify_all()


@contextmanager
def open_receiver(host: str, port: int, secret: str) -> Iterator[Receiver]:
    """Listen until the scene is over."""
    server = Receiver(host, port, secret)
    thread = threading.Thread(target=server.serve_forever, name="alert-receiver", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            alert = json.loads(body)
            received = ReceivedAlert(
                at=now(),
                kind=alert["kind"],
                severity=alert["severity"],
                title=alert["title"],
                body=alert["text"],
                signed=signature_holds(self.server.secret, headers, body),
            )
        except (ValueError, KeyError, TypeError):
            self.send_response(400)
            self.end_headers()
            return
        self.server.keep(headers.get("x-ratchet-delivery", ""), received)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the terminal belongs to the story."""
