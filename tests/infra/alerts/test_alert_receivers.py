"""Alerts by e-mail through a real SMTP receiver, test alerts past the outbox, and the console's address in them."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.alerts.config import AlertsConfig, Webhook
from infra.alerts.delivery import deliver, send_now, with_links
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables
from tests.infra.alerts.test_outbox import SECRET, Receiver, environment


class Mailbox(socketserver.ThreadingTCPServer):
    """An SMTP receiver (RFC 5321) of a few commands; what came lies in `mails`."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), _Session)

    @property
    def apprise_url(self) -> str:
        return f"mailto://127.0.0.1:{self.server_address[1]}?from=ratchet@example.org&to=ops@example.org&mode=insecure"


class _Session(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self._say("220 mailbox")
        while line := self.rfile.readline().decode():
            word = line.strip().upper()[:4]
            if word == "EHLO":
                self._say("250 mailbox")
            elif word == "DATA":
                self._say("354 go on")
                lines: list[str] = []
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(part)
                self.server.mails.append("".join(lines))
                self._say("250 taken")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    server = Mailbox()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


ALERT = Alert(
    kind="rolled_back",
    severity="critical",
    tenant="shop",
    title="v1 was taken back",
    text="Complaints say it is worse.",
    next_step="`ratchet status`",
)


def test_a_mail_arrives_once_with_the_next_step_and_the_way_to_the_console(mailbox: Mailbox, tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'outbox.db'}")
    create_tables(engine)
    config = AlertsConfig(apprise={"mail": "TEST_MAIL_URL"}, console_url="http://desk.example/console")
    with environment(TEST_MAIL_URL=mailbox.apprise_url):
        with begin_write(engine) as connection:
            enqueue(connection, ALERT)
        assert deliver(engine, config) == 1
        assert deliver(engine, config) == 0
    assert len(mailbox.mails) == 1
    from email import message_from_string
    from email.message import Message

    mail = message_from_string(mailbox.mails[0])
    parts = [part for part in mail.walk() if isinstance(part, Message) and not part.is_multipart()]
    payloads = [part.get_payload(decode=True) for part in parts]
    body = "".join(payload.decode() for payload in payloads if isinstance(payload, bytes))
    assert "Complaints say it is worse." in body
    assert "Next:" in body and "ratchet status" in body
    assert "http://desk.example/console#ledger" in body.replace("&#x2F;", "/")


def test_a_test_alert_says_of_each_receiver_whether_it_took_it(mailbox: Mailbox, receiver: Receiver) -> None:
    config = AlertsConfig(
        apprise={"mail": "TEST_MAIL_URL", "gone": "TEST_NOT_SET"},
        webhooks={"ops": Webhook(url=receiver.url, secret_env="TEST_ALERT_SECRET")},
    )
    with environment(TEST_MAIL_URL=mailbox.apprise_url, TEST_ALERT_SECRET=SECRET):
        found = send_now(ALERT, config)
    assert found["webhook:ops"] is None
    assert found["apprise:mail"] is None
    assert "TEST_NOT_SET is not set" in (found["apprise:gone"] or "")
    assert json.loads(receiver.received[0][1])["kind"] == "rolled_back"


def test_links_name_the_page_that_answers_and_leave_given_ones_alone() -> None:
    config = AlertsConfig(console_url="http://desk.example/console/")
    assert with_links(ALERT, config).links == {"console": "http://desk.example/console#ledger"}
    assert with_links(ALERT.model_copy(update={"kind": "promoted"}), config).links["console"].endswith("#live")
    given = ALERT.model_copy(update={"links": {"console": "http://x"}})
    assert with_links(given, config).links == {"console": "http://x"}
    assert with_links(ALERT, AlertsConfig()).links == {}
