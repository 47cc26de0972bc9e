"""MLflow's webhook wakes the controller; a registry that was killed and came back is caught up with."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from deploy.config import GatewayJob
from deploy.controller.run import ControllerJob, run
from deploy.ledger.ledger import current, history
from deploy.registry.aliases import Registry
from deploy.registry.webhook import HOOK_SECRET, PATH, Door, HookRefused, knock, verify
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import Unavailable
from tests.deploy.mlflow_server import MlflowServer
from tests.deploy.serving_stack import free_port, process
from tests.deploy.stages import published
from tests.waiting import wait

SECRET = "secret of a test"
HOOKED = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(b"0" * 32).decode(),
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}


def signed(body: bytes, secret: str = SECRET, *, at: int | None = None) -> dict[str, str]:
    """The headers that MLflow would send."""
    stamp = str(int(time.time()) if at is None else at)
    digest = hmac.new(secret.encode(), b"d1." + stamp.encode() + b"." + body, hashlib.sha256).digest()
    return {
        "x-mlflow-delivery-id": "d1",
        "x-mlflow-timestamp": stamp,
        "x-mlflow-signature": "v1," + base64.b64encode(digest).decode(),
    }


def signed_at(stamp: str, body: bytes) -> dict[str, str]:
    """The headers of somebody who holds the secret and writes an odd time."""
    digest = hmac.new(SECRET.encode(), b"d1." + stamp.encode() + b"." + body, hashlib.sha256).digest()
    return signed(body) | {
        "x-mlflow-timestamp": stamp,
        "x-mlflow-signature": "v1," + base64.b64encode(digest).decode(),
    }


def until(true: Callable[[], bool]) -> None:
    """Wait for it, MLflow up or down."""

    def found() -> bool:
        with suppress(Unavailable):
            return true()
        return False

    wait("it", found)


def test_only_what_was_signed_lately_with_our_secret_is_believed() -> None:
    body = b'{"entity": "model_version_alias"}'
    verify(signed(body), body, SECRET)
    for headers, sent, why in (
        (signed(body, "another"), body, "not signed with our secret"),
        (signed(body), body + b" ", "not signed with our secret"),
        (signed(body) | {"x-mlflow-delivery-id": "d2"}, body, "not signed with our secret"),
        ({}, body, "not signed with our secret"),
        (signed(body) | {"x-mlflow-signature": "é"}, body, "not signed with our secret"),
        (signed_at("²", body), body, "more than 300 s from now"),
        (signed_at("9" * 5000, body), body, "more than 300 s from now"),
        (signed(body, at=int(time.time()) - 3600), body, "more than 300 s from now"),
    ):
        with pytest.raises(HookRefused, match=why):
            verify(headers, sent, SECRET)


def test_a_knock_ends_a_wait_once_even_if_it_came_before(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'db.sqlite'}")
    create_tables(engine)
    door, other = Door(engine, look_every=0.05), Door(engine, look_every=0.05)
    never = threading.Event()
    assert not door.wait(never, 0.1)
    for _ in range(3):
        knock(engine)
    assert door.wait(never, 600) and not door.wait(never, 0.1), "three knocks, one look"
    assert other.wait(never, 600), "each controller hears it"
    never.set()
    assert not door.wait(never, 600)


@contextmanager
def controller(job: ControllerJob) -> Iterator[None]:
    """The controller at work in a thread of this process."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(job, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


class World:
    """A ledger, two versions, an MLflow that can be killed, and the controller's job."""

    def __init__(self, folder: Path, server: MlflowServer, hook_url: str | None, registry_seconds: float) -> None:
        self.versions = [published(folder, name) for name in ("one", "two")]
        url = f"sqlite:///{folder / 'db.sqlite'}"
        self.engine: Engine = connect(url)
        create_tables(self.engine)
        self.job = ControllerJob(
            database_url=url,
            versions_dir=folder / "versions",
            base_version="base-1",
            mlflow_url=server.url,
            mlflow_model="desk",
            mlflow_hook_url=hook_url,
            poll_seconds=0.1,
            registry_seconds=registry_seconds,
            holder="test",
        )
        self.registry = Registry(server.url, "desk")

    def aliases(self) -> dict[str, str | None]:
        return {alias: self.registry.version_of(number)[0] for alias, number in self.registry.aliases().items()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "mlflow", HOOKED)
    server.start()
    yield server
    server.kill()


def test_a_move_by_hand_is_looked_at_when_mlflow_says_so(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hours between two looks only the webhook can be what wakes the controller."""
    monkeypatch.setenv(HOOK_SECRET, SECRET)
    port = free_port()
    gateway_url = f"http://127.0.0.1:{port}"
    world = World(tmp_path, server, f"{gateway_url}{PATH}", registry_seconds=7200)
    gateway = GatewayJob(
        database_url=world.job.database_url,
        versions_dir=world.job.versions_dir,
        base_name="base-1",
        engine_url="http://127.0.0.1:9",
        port=port,
    )
    with process("deploy.gateway", gateway, tmp_path / "gateway.json", f"{gateway_url}/healthz"), controller(world.job):
        until(lambda: world.aliases() == {"champion": "base-1"})
        until(lambda: any(hook.url.endswith(PATH) for hook in world.registry.client.list_webhooks()))
        time.sleep(2.0)  # MLflow remembers for a second that it had no webhook
        number = world.registry.register(world.versions[0], None, {})
        world.registry.set_alias("champion", number)
        until(lambda: world.aliases() == {"champion": "base-1"} and _put_back(world) == 1)
        forged = httpx.post(f"{gateway_url}{PATH}", content=b"{}", headers=signed(b"{}", "another"))
        assert forged.status_code == 401 and "not signed with our secret" in forged.text
        assert httpx.post(f"{gateway_url}{PATH}", content=b"x" * 70_000).status_code == 413
        world.registry.set_alias("champion", None)
        until(lambda: world.aliases() == {"champion": "base-1"} and _put_back(world) == 2)


def test_reconciling_survives_a_registry_that_is_killed_and_comes_back(server: MlflowServer, tmp_path: Path) -> None:
    world = World(tmp_path, server, None, registry_seconds=0.5)
    with controller(world.job):
        until(lambda: world.aliases() == {"champion": "base-1"})
        server.kill()
        # The ledger goes on meanwhile; several looks fail.
        from deploy.ledger.ledger import Entry, append

        for action, version, more in (
            ("gated", world.versions[0], {}),
            ("canary", world.versions[0], {"share": 0.5, "previous": "base-1"}),
            ("champion", world.versions[0], {"previous": "base-1"}),
        ):
            values = {"tenant": "default", "action": action, "version": version, "actor": "t", "reason": "t", **more}
            append(world.engine, Entry.model_validate(values), current(world.engine, "default").seq)
        time.sleep(5.0)
        assert current(world.engine, "default").champion == world.versions[0]
        server.start()
        until(lambda: world.aliases() == {"champion": world.versions[0], "previous": "base-1"})
    assert _put_back(world) == 0, "what was not written yet is nobody's move"
    assert [line.action for line in history(world.engine, "default")] == ["baseline", "gated", "canary", "champion"]


def _put_back(world: World) -> int:
    return sum(alert.kind == "alias_put_back" for alert in list_alerts(world.engine))
