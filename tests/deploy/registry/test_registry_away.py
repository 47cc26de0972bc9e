"""The controller looks at MLflow again and again; a registry that was killed and came back is caught up with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.controller.job import ControllerJob
from deploy.controller.run import run
from deploy.ledger.ledger import current, history
from deploy.registry.model_registry import ModelRegistry
from infra.alerts.outbox import list_alerts
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import Unavailable
from tests.deploy.mlflow_server import MlflowServer
from tests.deploy.stages import published
from tests.waiting import wait


def until(true: Callable[[], bool]) -> None:
    """Wait for it, MLflow up or down."""

    def found() -> bool:
        with suppress(Unavailable):
            return true()
        return False

    wait("it", found)


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

    def __init__(self, folder: Path, server: MlflowServer) -> None:
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
            poll_seconds=0.1,
            registry_seconds=0.5,
            holder="test",
        )
        self.registry = ModelRegistry(server.url, "desk")

    def aliases(self) -> dict[str, str | None]:
        return {alias: self.registry.version_of(number).version for alias, number in self.registry.aliases().items()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "mlflow")
    server.start()
    yield server
    server.kill()


def test_a_move_by_hand_is_put_back_at_the_next_look(server: MlflowServer, tmp_path: Path) -> None:
    world = World(tmp_path, server)
    with controller(world.job):
        until(lambda: world.aliases() == {"champion": "base-1"})
        number = world.registry.register(world.versions[0], None, {})
        world.registry.set_alias("champion", number)
        until(lambda: world.aliases() == {"champion": "base-1"} and _put_back(world) == 1)
        world.registry.set_alias("champion", None)
        until(lambda: world.aliases() == {"champion": "base-1"} and _put_back(world) == 2)


def test_reconciling_survives_a_registry_that_is_killed_and_comes_back(server: MlflowServer, tmp_path: Path) -> None:
    world = World(tmp_path, server)
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
