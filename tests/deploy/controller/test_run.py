"""The controller as a process: it takes bad versions back, survives kill -9, and tells a real receiver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.controller.heartbeat import last_beats
from deploy.controller.job import ControllerJob
from deploy.controller.rounds import judge_once, watch_once, watch_qualities
from deploy.controller.run import _all_alive, _every
from deploy.ledger.evidence import Proof, VerdictSummary
from deploy.ledger.lease import lease_valid
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import start
from deploy.release.opening import Releases
from infra.alerts.config import AlertsConfig, Webhook
from infra.alerts.outbox import list_alerts
from infra.alerts.signature import signature_holds
from infra.database.connect import connect
from infra.database.schema import create_tables
from infra.errors import Unavailable, UserError
from infra.processes.job_file import read_job
from tests.deploy.odd_lines import put_odd_line
from tests.deploy.stages import published
from tests.deploy.traffic import serve

SECRET = "a secret for tests"
POLICY = CanaryPolicy(
    steps=(0.5,), minimum_seconds=3600, deadline_seconds=7200, window_seconds=0.5, lease_seconds=2.0, step_units=0
)


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for `condition`; a process on a busy machine may take its time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen")
        time.sleep(0.05)


@contextmanager
def controller(job: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.controller", str(job)],
        env=os.environ | {"TEST_ALERT_SECRET": SECRET},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """The URL of a receiver, and the signed alerts it got."""
    alerts: list[dict[str, object]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = signature_holds(SECRET, {k.lower(): v for k, v in self.headers.items()}, body)
            if good:
                alerts.append(json.loads(body))
            self.send_response(200 if good else 401)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", alerts
    server.shutdown()
    server.server_close()


def write_job(folder: Path, hook: str) -> tuple[Path, ControllerJob]:
    job = ControllerJob(
        database_url=f"sqlite:///{folder / 'db.sqlite'}",
        versions_dir=folder / "versions",
        base_version="base-1",
        tenants=("t",),
        canary=POLICY,
        alerts=AlertsConfig(webhooks={"ops": Webhook(url=hook, secret_env="TEST_ALERT_SECRET")}, retry_seconds=0.1),
        mlflow_url="http://127.0.0.1:9",  # down, and nobody waits for it
        poll_seconds=0.2,
    )
    path = folder / "controller.json"
    path.write_text(job.model_dump_json())
    return path, job


def test_it_takes_a_bad_version_back_also_after_being_killed(
    tmp_path: Path, received: tuple[str, list[dict[str, object]]]
) -> None:
    hook, alerts = received
    path, job = write_job(tmp_path, hook)
    engine: Engine = connect(job.database_url)
    v1 = published(tmp_path, "one")
    with controller(path) as process:
        create_tables(engine)
        until(lambda: current(engine, "t").champion == "base-1")
        until(lambda: last_beats(engine))
        Releases(engine, "t", versions_dir=job.versions_dir, policy=POLICY, prove=lambda name: Proof()).open(
            v1, actor="night", gate=VerdictSummary(decision="promote")
        )
        until(lambda: lease_valid(engine, "t"))
        serve(engine, 20, {"base-1": 0.9, v1: 0.2}, tenant="t")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    until(lambda: not lease_valid(engine, "t"), 10)  # gateways now route everyone to the champion
    serve(engine, 200, {"base-1": 0.9, v1: 0.2}, tenant="t", seed=2)
    assert current(engine, "t").canary == v1
    with controller(path) as process:
        until(lambda: current(engine, "t").canary is None)
        line = history(engine, "t")[-1]
        assert (line.action, line.version, line.previous, line.actor) == ("rolled_back", v1, "base-1", "controller")
        until(lambda: {"baseline", "release_opened", "rolled_back"} <= {str(alert["kind"]) for alert in alerts})
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
    assert [entry.action for entry in history(engine, "t")] == ["baseline", "gated", "canary", "rolled_back"]
    assert len({str(alert["alert_id"]) for alert in alerts}) == 3
    beat = last_beats(engine)[job.holder]
    assert "MLflow" in str(beat.activity.mlflow.get("t", "MLflow")) and beat.at is not None


def test_a_stopped_controller_gives_its_lease_back(
    tmp_path: Path, received: tuple[str, list[dict[str, object]]]
) -> None:
    path, job = write_job(tmp_path, received[0])
    path.write_text(
        job.model_copy(update={"canary": POLICY.model_copy(update={"lease_seconds": 600.0})}).model_dump_json()
    )
    engine = connect(job.database_url)
    create_tables(engine)
    v1 = published(tmp_path, "one")
    with controller(path) as process:
        until(lambda: current(engine, "t").champion == "base-1")
        Releases(
            engine,
            "t",
            versions_dir=job.versions_dir,
            policy=POLICY.model_copy(update={"lease_seconds": 600.0}),
            prove=lambda name: Proof(),
        ).open(v1, actor="night", gate=VerdictSummary(decision="promote"))
        until(lambda: lease_valid(engine, "t"))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert not lease_valid(engine, "t") and current(engine, "t").canary == v1


def test_one_tenants_failure_does_not_keep_the_others(tmp_path: Path) -> None:
    _, job = write_job(tmp_path, "http://127.0.0.1:9/")
    engine = connect(job.database_url)
    create_tables(engine)
    for tenant in ("a", "b"):
        start(engine, tenant, "base-1")
        Releases(engine, tenant, versions_dir=job.versions_dir, policy=POLICY, prove=lambda name: Proof()).open(
            published(tmp_path, tenant), actor="night", gate=VerdictSummary(decision="promote")
        )
    with engine.begin() as connection:  # a share that no table of the feedback store can explain
        connection.exec_driver_sql("DROP TRIGGER releases_no_update")
        connection.exec_driver_sql(
            "UPDATE releases SET evidence = '{\"policy\": 1}' WHERE tenant = 'a' AND action = 'canary'"
        )
    assert watch_once(engine, job) == {"a": "failed", "b": "watch"}


def test_a_line_of_a_newer_release_stops_its_own_tenants_watch_only(tmp_path: Path) -> None:
    _, job = write_job(tmp_path, "http://127.0.0.1:9/")
    engine = connect(job.database_url)
    create_tables(engine)
    for tenant in ("a", "b"):
        start(engine, tenant, "base-1")
        put_odd_line(engine, tenant, "gated", "v1")
        put_odd_line(engine, tenant, "canary", "v1", share=0.5, at=int(time.time() * 1_000_000))
    put_odd_line(engine, "a", "frozen", "v1")
    assert watch_once(engine, job) == {"a": "failed", "b": "watch"}
    assert (lease_valid(engine, "a"), lease_valid(engine, "b")) == (False, True)


def test_a_thread_whose_work_fails_goes_on_and_one_that_ends_is_told() -> None:
    stop, worked = threading.Event(), []

    def fail() -> None:
        worked.append(1)
        raise ValueError("work that fails, as of a database's odd row")

    thread = _every(0.01, stop, "odd", fail)
    until(lambda: len(worked) > 2)
    stop.set()
    thread.join(10)
    with pytest.raises(Unavailable, match="odd has ended"):
        _all_alive([thread], threading.Event())


def test_one_tenants_failure_keeps_no_other_from_its_shadow_or_its_quality(tmp_path: Path) -> None:
    _, job = write_job(tmp_path, "http://127.0.0.1:9/")
    engine = connect(job.database_url)
    create_tables(engine)
    shadow = POLICY.model_copy(update={"shadow_share": 1.0, "shadow_seconds": 0.0})
    for tenant in ("a", "b"):
        start(engine, tenant, "base-1")
    job = job.model_copy(update={"canary": POLICY.model_copy(update={"window_seconds": 2.0})})
    serve(engine, 150, {"base-1": 0.9}, tenant="b", seed=1)
    serve(engine, 60, {"base-1": 0.1}, tenant="b", seed=2)
    time.sleep(2.2)  # until their scores can no longer change
    with engine.begin() as connection:  # a line that no version of Ratchet can read
        connection.exec_driver_sql("DROP TRIGGER releases_no_update")
        connection.exec_driver_sql("UPDATE releases SET action = 'unknown' WHERE tenant = 'a'")
    watch_qualities(engine, job)
    assert [alert.tenant for alert in list_alerts(engine) if alert.kind == "quality_drift"] == ["b"]
    Releases(engine, "b", versions_dir=job.versions_dir, policy=shadow, prove=lambda name: Proof()).open(
        published(tmp_path, "b"), actor="night", gate=VerdictSummary(decision="promote")
    )
    judge_once(engine, job, None, None)
    assert history(engine, "b")[-1].action == "canary"


def test_a_wrong_job_is_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "job.json"
    wrong.write_text('{"database_url": "sqlite://", "unknown": 1}')
    for arguments in ([], [str(tmp_path / "missing.json")], [str(wrong)]):
        with pytest.raises(UserError):
            read_job(arguments, ControllerJob)
