"""The outbox against a real receiver on loopback."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from infra.alerts.config import AlertsConfig, Webhook
from infra.alerts.delivery import deliver
from infra.alerts.outbox import Alert, deliveries, enqueue, list_alerts
from infra.alerts.signature import sign, signature_holds
from infra.database.connect import begin_write, connect, now
from infra.database.schema import create_tables
from infra.stored_model import Stored

SECRET = "a secret for tests"
Received = list[tuple[dict[str, str], bytes]]


class Receiver(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.received: Received = []
        self.failures = 0  # how many of the next requests to refuse
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_response(503)
        else:
            self.server.received.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = connect(f"sqlite:///{tmp_path / 'outbox.db'}")
    create_tables(engine)
    return engine


@contextmanager
def environment(**values: str) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


def config(url: str, **options: float) -> AlertsConfig:
    return AlertsConfig(
        webhooks={"ops": Webhook(url=url, secret_env="TEST_ALERT_SECRET")}, retry_seconds=0.001, **options
    )


def put(engine: Engine, **values: object) -> Alert:
    alert = Alert.model_validate({"kind": "promoted", "title": "v1 is live", "payload": {"n": 1}} | values)
    with begin_write(engine) as connection:
        assert enqueue(connection, alert)
    return alert


def test_an_alert_arrives_once_signed_and_readable(engine: Engine, receiver: Receiver) -> None:
    alert = put(engine, tenant="t", text="because", next_step="ratchet status", links={"run": "http://x"})
    with environment(TEST_ALERT_SECRET=SECRET):
        assert deliver(engine, config(receiver.url)) == 1
        assert deliver(engine, config(receiver.url)) == 0
    [(headers, body)] = receiver.received
    assert signature_holds(SECRET, headers, body)
    assert not signature_holds("another secret", headers, body)
    assert not signature_holds(SECRET, headers, body + b" ")
    assert not signature_holds(SECRET, {**headers, "x-ratchet-timestamp": "1700000000"}, body)
    told = json.loads(body)
    assert told["alert_id"] == alert.alert_id == headers["x-ratchet-delivery"]
    assert (told["kind"], told["tenant"], told["next_step"], told["payload"]) == (
        "promoted",
        "t",
        "ratchet status",
        {"n": 1},
    )


def test_a_replayed_request_is_refused() -> None:
    old = {"x-ratchet-delivery": "a", "x-ratchet-timestamp": "1700000000"}
    signed = {**old, "x-ratchet-signature": sign(SECRET, "a", "1700000000", b"{}")}
    assert not signature_holds(SECRET, signed, b"{}")
    assert signature_holds(SECRET, signed, b"{}", tolerance_seconds=1e12)


def test_whatever_a_stranger_sends_the_answer_is_no() -> None:
    """It is asked before anything is known of the sender: an error would be theirs to cause."""
    stamp = str(int(time.time()))
    odd = ("é", "\ud800", "²", "", "v1,", "9" * 5000, "-1", "1e9", "٣", stamp)
    for delivery in ("a", "é", "\ud800"):
        for when in odd:
            for signature in odd:
                headers = {
                    "x-ratchet-delivery": delivery,
                    "x-ratchet-timestamp": when,
                    "x-ratchet-signature": signature,
                }
                assert signature_holds(SECRET, headers, b"{}") is False
    for when in ("²", "٣", "9" * 5000, "", "now"):  # signed, by somebody who counts otherwise
        signed = {"x-ratchet-timestamp": when, "x-ratchet-signature": sign(SECRET, "", when, b"{}")}
        assert signature_holds(SECRET, signed, b"{}") is False


def test_a_failing_receiver_gets_it_later_and_nothing_is_lost(engine: Engine, receiver: Receiver) -> None:
    alerts = [put(engine, title=f"number {i}") for i in range(3)]
    receiver.failures = 4
    with environment(TEST_ALERT_SECRET=SECRET):
        assert deliver(engine, config(receiver.url)) == 0
        assert list_alerts(engine)[0].failing == {"webhook:ops": "HTTP 503"}
        for _ in range(200):
            if len(receiver.received) == 3:
                break
            deliver(engine, config(receiver.url))
    assert sorted(h["x-ratchet-delivery"] for h, _ in receiver.received) == sorted(a.alert_id for a in alerts)
    assert all(a.delivered == ("webhook:ops",) and not a.failing for a in list_alerts(engine))


def test_failures_back_off(engine: Engine, receiver: Receiver) -> None:
    put(engine)
    receiver.failures = 1
    slow = config(receiver.url).model_copy(update={"retry_seconds": 3600.0, "retry_max_seconds": 7200.0})
    with environment(TEST_ALERT_SECRET=SECRET):
        assert deliver(engine, slow) == 0
        assert deliver(engine, slow) == 0 and receiver.received == []  # not due yet
        with begin_write(engine) as connection:
            connection.execute(update(deliveries).values(next_try=now()))
        assert deliver(engine, slow) == 1


def test_a_crash_before_the_note_sends_it_again_with_the_same_id(engine: Engine, receiver: Receiver) -> None:
    put(engine)
    with environment(TEST_ALERT_SECRET=SECRET):
        deliver(engine, config(receiver.url))
        with begin_write(engine) as connection:
            connection.execute(deliveries.delete())  # what a kill -9 after the answer leaves
        deliver(engine, config(receiver.url))
    assert len(receiver.received) == 2
    assert len({headers["x-ratchet-delivery"] for headers, _ in receiver.received}) == 1


def test_nothing_is_sent_unsigned(engine: Engine, receiver: Receiver) -> None:
    put(engine)
    assert deliver(engine, config(receiver.url)) == 0
    assert receiver.received == []
    assert "TEST_ALERT_SECRET is not set" in list_alerts(engine)[0].failing["webhook:ops"]


def test_an_unreachable_receiver_is_noted_and_old_alerts_are_given_up(engine: Engine) -> None:
    put(engine, created_at=now() - timedelta(hours=2))
    nowhere = config("http://127.0.0.1:9/", give_up_hours=1.0)
    with environment(TEST_ALERT_SECRET=SECRET):
        assert deliver(engine, nowhere) == 0
        assert list_alerts(engine)[0].failing == {}  # too old: not tried
        assert deliver(engine, config("http://127.0.0.1:9/")) == 0
    assert "ConnectError" in list_alerts(engine)[0].failing["webhook:ops"]


def test_an_alert_lives_and_dies_with_its_transaction(engine: Engine) -> None:
    with pytest.raises(RuntimeError), begin_write(engine) as connection:
        enqueue(connection, Alert(kind="promoted", title="never true"))
        raise RuntimeError("what made it true did not happen")
    assert list_alerts(engine) == []


def test_one_alert_per_dedupe_key(engine: Engine) -> None:
    put(engine, dedupe_key="incident/t/1")
    with begin_write(engine) as connection:
        assert not enqueue(connection, Alert(kind="incident", title="again", dedupe_key="incident/t/1"))
        assert enqueue(connection, Alert(kind="incident", title="without a key"))
    assert [a.title for a in list_alerts(engine)] == ["without a key", "v1 is live"]


def test_alerts_are_listed_newest_first_by_tenant(engine: Engine) -> None:
    for number, tenant in enumerate(["a", "b", None]):
        put(engine, tenant=tenant, title=f"{number}", created_at=now() + timedelta(seconds=number))
    assert [a.title for a in list_alerts(engine)] == ["2", "1", "0"]
    assert [a.title for a in list_alerts(engine, tenant="a")] == ["2", "0"]
    assert [a.title for a in list_alerts(engine, limit=1)] == ["2"]


def test_apprise_delivers_too(engine: Engine, receiver: Receiver) -> None:
    put(engine, severity="critical", text="because", next_step="look")
    url = receiver.url.replace("http://", "json://")
    settings = AlertsConfig(apprise={"chat": "TEST_APPRISE_URL"}, retry_seconds=0.001)
    with environment(TEST_APPRISE_URL=url):
        assert deliver(engine, settings) == 1
    told = json.loads(receiver.received[0][1])
    assert told["title"] == "[ratchet] v1 is live" and "Next: look" in told["message"] and told["type"] == "failure"
    put(engine)
    with environment(TEST_APPRISE_URL="no-such-service://x"):
        assert deliver(engine, settings) == 0
    assert "apprise" in list_alerts(engine)[0].failing["apprise:chat"]


def test_facts_may_be_a_model_and_are_kept_as_json() -> None:
    class Facts(Stored):
        version: str
        at: datetime
        columns: tuple[str, ...] = ()

    facts = Facts(version="v1", at=datetime(2026, 1, 2, tzinfo=UTC), columns=("a", "b"))
    alert = Alert(kind="drift", title="inputs moved", payload=facts)
    assert alert.payload == {"version": "v1", "at": "2026-01-02T00:00:00Z", "columns": ["a", "b"]}
    assert alert.payload == facts.model_dump(mode="json")
