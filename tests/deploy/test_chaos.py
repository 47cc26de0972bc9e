"""Every part of the real stack is killed in turn, under constant load and during a release; nothing said is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from deploy.canary.policy import CanaryPolicy
from deploy.controller.heartbeat import last_beats
from deploy.controller.job import ControllerJob
from deploy.ledger.evidence import Override
from deploy.ledger.ledger import current, history
from deploy.registry.model_registry import ModelRegistry
from deploy.release.opening import Releases
from deploy.versions.parity import prover
from feedback.store.store import Store
from feedback.store.store import feedback as feedback_table
from infra.database.connect import connect, now
from infra.database.schema import create_tables
from infra.settings import Config
from tests.deploy.serving_stack import BASE, ENGINE_KEY, SALT, Stack, free_port, prepare
from tests.postgres import Postgres, find_binaries

CLIENTS = int(os.environ.get("RATCHET_CHAOS_CLIENTS", "32"))
POLICY = CanaryPolicy(
    steps=(0.5,), minimum_seconds=0, window_seconds=5, margin=0.3, holdback=0.1, holdback_seconds=3600, lease_seconds=8
)


class Part:
    """One process that can be killed and started again."""

    def __init__(self, name: str, argv: list[str], log: Path, healthy: Callable[[], bool]) -> None:
        self.name, self._argv, self._log, self.healthy = name, argv, log, healthy
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        names = {"RATCHET_ENGINE_KEY": ENGINE_KEY, "RATCHET_USER_SALT": SALT, "OMP_NUM_THREADS": "1"}
        names |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv, env={**os.environ, **names}, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9, whatever it started included."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(30)

    def wait(self) -> None:
        deadline = time.monotonic() + 600  # a hang is what is meant, not a busy machine
        while not self.healthy():
            assert time.monotonic() < deadline, f"{self.name} is not back: {self._log.read_text()[-2000:]}"
            time.sleep(0.1)


@dataclass
class Users:
    """Clients that chat and rate without a pause; a rating is sent again until it is taken, as an application would."""

    url: str
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    answered: list[tuple[str, str]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    failed: list[tuple[float, float, str]] = field(default_factory=list)
    refused: list[tuple[float, float, str]] = field(default_factory=list)

    def run(self, number: int) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=90, trust_env=False) as http:
            turn = 0
            while not self.stop.is_set():
                turn += 1
                user = f"user {number} {turn // 3}"
                ask = {"model": "desk", "messages": [{"role": "user", "content": "refund"}], "max_tokens": 2}
                sent = time.monotonic()
                try:
                    answer = http.post("/v1/chat/completions", json={**ask, "user": user})
                    answer.raise_for_status()
                except httpx.HTTPError as error:
                    said = getattr(getattr(error, "response", None), "text", "")
                    self.failed.append((sent, time.monotonic(), f"{error!r} {said}"))
                    time.sleep(0.2)
                    continue
                self.answered.append((answer.json()["id"], answer.headers["x-ratchet-version"]))
                self._rate(http, answer.json()["id"], user)
                time.sleep(0.05)  # they read, too; without it the load measures itself

    def _rate(self, http: httpx.Client, interaction_id: str, user: str) -> None:
        event = f"ev-{uuid.uuid4().hex}"
        said = {"interaction_id": interaction_id, "kind": "thumb", "up": True, "user": user, "event_id": event}
        while not self.stop.is_set():
            sent = time.monotonic()
            try:
                http.post("/v1/feedback", json=said).raise_for_status()
                self.acknowledged.append(event)
                return
            except httpx.HTTPError as error:
                self.refused.append((sent, time.monotonic(), repr(error)))
                time.sleep(0.5)


def _get(url: str) -> Callable[[], bool]:
    def healthy() -> bool:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.HTTPError:
            return False

    return healthy


def _own(module: str, job: Config, folder: Path, healthy: Callable[[], bool]) -> Part:
    name = module.rpartition(".")[2]
    file = folder / f"{name}.json"
    file.write_text(job.model_dump_json())
    return Part(name, [sys.executable, "-m", module, str(file)], folder / f"{name}.log", healthy)


def _mlflow(folder: Path) -> tuple[Part, str]:
    port = free_port()
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    argv += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    argv += ["--artifacts-destination", str(folder / "artifacts")]
    url = f"http://127.0.0.1:{port}"
    return Part("mlflow", argv, folder / "mlflow.log", _get(f"{url}/health")), url


def _kill_postgres(server: Postgres) -> None:
    assert server._server is not None
    server._server.kill()
    server._server.wait(30)


def _start_postgres(server: Postgres) -> None:
    for _ in range(20):
        try:
            server.start()
            return
        except RuntimeError:  # children of the killed one still hold its memory
            time.sleep(1.0)
    raise AssertionError("Postgres does not come back")


@pytest.mark.slow
def test_every_part_is_killed_in_turn_during_a_release(tiny_base: Path, tmp_path: Path) -> None:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NO POSTGRES HERE, this is not tested")
    with ExitStack() as ends:
        place = ends.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-chaos-"))
        server = Postgres(binaries, Path(place))
        server.create()
        server.start()
        ends.callback(server.stop)
        _chaos(prepare(tiny_base, tmp_path, versions=2), server, tmp_path, ends)


def _chaos(stack: Stack, server: Postgres, folder: Path, ends: ExitStack) -> None:
    url = server.new_database()
    stack.database = connect(url)
    create_tables(stack.database)
    stack.say("baseline", BASE)
    stack.gateway_job = stack.gateway_job.model_copy(update={"database_url": url})
    mlflow, mlflow_url = _mlflow(folder)
    controller_job = ControllerJob(
        database_url=url,
        versions_dir=stack.versions_dir,
        base_version=BASE,
        engine_url=stack.engine_url,
        canary=POLICY,
        mlflow_url=mlflow_url,
        mlflow_model="chaos",
        poll_seconds=0.5,
        registry_seconds=2.0,
        holder="chaos",
    )

    killed_at = now()

    def beating() -> bool:
        """Whether the controller that was started last has said so: an older one's word does not count."""
        at = last_beats(stack.database).get("chaos")
        return at is not None and at.at > killed_at and (now() - at.at).total_seconds() < 5

    engine = _own("deploy.engines.embedded", stack.engine_job, folder, _get(f"{stack.engine_url}/health"))
    gateway = _own("deploy.gateway", stack.gateway_job, folder, _get(f"{stack.url}/readyz"))
    controller = _own("deploy.controller", controller_job, folder, beating)
    for part in (mlflow, engine, gateway, controller):
        part.start()
        ends.callback(part.kill)
    for part in (mlflow, engine, gateway, controller):
        part.wait()

    users = Users(stack.url, stack.key("chat", "feedback"))
    threads = [threading.Thread(target=users.run, args=(number,), daemon=True) for number in range(CLIENTS)]
    ends.callback(users.stop.set)
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    with stack.engine() as client:
        Releases(
            stack.database,
            "default",
            versions_dir=stack.versions_dir,
            policy=POLICY,
            prove=prover(client, stack.versions_dir, base_version=BASE),
        ).open(stack.versions[0], actor="test", override=Override(actor="ada", reason="chaos"))
    down: dict[str, tuple[float, float]] = {}
    for part in (gateway, engine, mlflow, controller):
        began = time.monotonic()
        part.kill()
        killed_at = now()
        time.sleep(1.0)
        part.start()
        part.wait()
        down[part.name] = (began, time.monotonic())
        time.sleep(2.0)
    began = time.monotonic()
    _kill_postgres(server)
    killed_at = now()
    answered = len(users.answered)
    time.sleep(4.0)
    assert len(users.answered) > answered, "chat goes on while the database is away"
    _start_postgres(server)
    gateway.wait()
    down["postgres"] = (began, time.monotonic())
    _until(beating)
    _until(lambda: current(stack.database, "default").champion == stack.versions[0], seconds=240)
    time.sleep(2.0)
    users.stop.set()
    for thread in threads:
        thread.join(120)
    _until(lambda: not list(stack.gateway_job.spool.glob("*.jsonl")))
    _check(stack, users, down, mlflow_url)


def _check(stack: Stack, users: Users, down: dict[str, tuple[float, float]], mlflow_url: str) -> None:
    print(
        f"\n{len(users.answered)} answers, {len(users.acknowledged)} ratings acknowledged, {len(users.failed)} answers "
        f"failed, {len(users.refused)} ratings refused at first; down: "
        + ", ".join(f"{name} {end - begin:.1f} s" for name, (begin, end) in down.items())
    )
    with stack.database.connect() as connection:
        kept = set(connection.scalars(feedback_table.select().with_only_columns(feedback_table.c.event_id)))
        waiting = connection.scalar(text("SELECT count(*) FROM feedback WHERE waiting"))
    assert not set(users.acknowledged) - kept, "an acknowledged rating was lost"
    assert waiting == 0
    lines = history(stack.database, "default")
    assert {version for _, version in users.answered} <= {line.version for line in lines}
    found = Store(stack.database).interactions_of({("default", interaction_id) for interaction_id, _ in users.answered})
    assert {(i.interaction_id, i.version) for i in found.values()} == set(users.answered), "an answer was not captured"

    def outside(failures: list[tuple[float, float, str]], *names: str) -> list[str]:
        windows = [down[name] for name in names]
        return [said for sent, ended, said in failures if not any(sent <= e + 2 and ended >= b for b, e in windows)]

    assert outside(users.failed, "gateway", "embedded") == []
    assert outside(users.refused, "gateway", "postgres") == []
    standing = current(stack.database, "default")
    assert standing.champion == stack.versions[0] and standing.holdback == BASE
    registry = ModelRegistry(mlflow_url, "chaos")
    wanted = {"champion": stack.versions[0], "previous": BASE}
    _until(lambda: {alias: registry.version_of(n).version for alias, n in registry.aliases().items()} == wanted)
    assert httpx.get(f"{stack.url}/readyz").json()["status"] == "ready"


def _until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(Exception):  # our own connections died with the database
            if condition():
                return
        assert time.monotonic() < deadline, "it does not become so"
        time.sleep(0.2)
