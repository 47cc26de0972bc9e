"""The demo's folder is wiped only when a demo made it; its alert receiver checks signatures and drops repetitions."""

import os
from pathlib import Path

import httpx
import pytest

from flows.demo import home
from flows.demo.receiver import open_receiver
from infra.alerts.config import AlertsConfig, Webhook
from infra.alerts.delivery import deliver
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables
from infra.errors import UserError


def test_a_clean_start_makes_and_wipes_only_what_a_demo_made(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    home.start_clean(mine)
    assert (mine / home.MARKER).exists() and not home.played(mine)
    (mine / "left-over").write_text("x")
    (mine / home.CONFIG).write_text("pipeline: x")
    assert home.played(mine)
    home.start_clean(mine)
    assert [path.name for path in mine.iterdir()] == [home.MARKER]


def test_what_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "documents" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("ten years of work")
    for folder in (tmp_path / "documents", thesis):
        with pytest.raises(UserError, match="not made by a demo"):
            home.start_clean(folder)
    assert thesis.read_text() == "ten years of work"
    (tmp_path / "empty").mkdir()
    home.start_clean(tmp_path / "empty")
    assert (tmp_path / "empty" / home.MARKER).exists()


def test_the_receiver_keeps_each_alert_once_and_knows_a_wrong_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "RATCHET_WEBHOOK_SECRET", "right")
    engine = connect(f"sqlite:///{tmp_path / 'outbox.db'}")
    create_tables(engine)
    with open_receiver("127.0.0.1", 0, "right") as receiver:
        url = f"http://127.0.0.1:{receiver.server_address[1]}/alerts"
        config = AlertsConfig(webhooks={"demo": Webhook(url=url)})
        assert receiver.wait_for("promoted", seconds=0.0) is None
        with begin_write(engine) as connection:
            enqueue(connection, Alert(kind="promoted", title="v1 is live", text="it won", severity="info"))
        assert deliver(engine, config) == 1
        arrived = receiver.wait_for("promoted", seconds=5.0)
        assert arrived is not None and arrived.signed and (arrived.title, arrived.body) == ("v1 is live", "it won")
        assert receiver.wait_for("promoted", after=1, seconds=0.0) is None

        forged = {"kind": "promoted", "severity": "info", "title": "v2 is live", "text": ""}
        for _ in range(2):
            httpx.post(url, json=forged, headers={"X-Ratchet-Delivery": "again", "X-Ratchet-Signature": "v1,AAAA"})
        assert [alert.signed for alert in receiver.received] == [True, False]
        assert httpx.post(url, content=b"not json").status_code == 400
        assert len(receiver.received) == 2
