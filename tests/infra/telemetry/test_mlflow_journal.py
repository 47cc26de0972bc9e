"""Tracking that never stops a night: a journal first, a real MLflow server when it answers."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.processes.stack import ProcessSpec, StackPlan, down, up
from infra.telemetry.mlflow_journal import refusals
from infra.telemetry.mlflow_operations import Point
from infra.telemetry.mlflow_sender import send_leftovers
from infra.telemetry.mlflow_tracker import Tracker

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    store = ("--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "art"))
    spec = ProcessSpec(
        name="mlflow",
        argv=(sys.executable, "-m", "mlflow", "server", *options, *store),
        env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        port=port,
        health_url=f"http://127.0.0.1:{port}/health",
        log_file=folder / "log",
        ready_seconds=240,
    )
    up(StackPlan(run_dir=folder / "run", log_file=folder / "stack.log", processes=(spec,)))
    yield f"http://127.0.0.1:{port}"
    down(folder / "run")


def tell(tracker: Tracker, folder: Path) -> None:
    file = folder / "record.json"
    file.write_text("{}")
    tracker.run("night/1", name="night 1", tags={"ratchet.kind": "night"})
    tracker.params("night/1", {"training": {"seed": 3, "methods": ["a", "b"], "none": None}})
    tracker.run("night/1/sft", name="sft", parent="night/1")
    points = [Point(name="loss", value=1.0 / (step + 1), step=step, at_ms=1000 + step) for step in range(1500)]
    tracker.points("night/1/sft", [*points, Point(name="loss", value=float("nan"), step=9, at_ms=5)])
    tracker.dataset("night/1/sft", name="train", digest="d", source="here", context="training", rows={"sft": 3})
    tracker.artifact("night/1/sft", file, "stage")
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    tracker.model("night/1/sft", version="v0123", path=adapter, params={"recipe": "sft"})
    tracker.table("night/1", "items", ["item", "loss"], [["a", 1.5], ["b", None]])
    tracker.finish("night/1/sft")
    tracker.finish("night/1")


def mlflow_table(client: Any, run_id: str) -> Any:
    import mlflow
    from mlflow.artifacts import load_text

    mlflow.set_tracking_uri(client.tracking_uri)
    return json.loads(load_text(f"runs:/{run_id}/items.json"))


def check(url: str, experiment: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(url)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = {run.data.tags["ratchet.key"]: run for run in client.search_runs([found.experiment_id])}
    assert set(runs) == {"night/1", "night/1/sft"}
    night, sft = runs["night/1"], runs["night/1/sft"]
    assert sft.data.tags["mlflow.parentRunId"] == night.info.run_id
    assert night.data.params == {"training.seed": "3", "training.methods": '["a","b"]'}
    history = client.get_metric_history(sft.info.run_id, "loss")
    assert len(history) == 1500
    assert [file.path for file in client.list_artifacts(sft.info.run_id, "stage")] == ["stage/record.json"]
    models = client.search_logged_models([found.experiment_id])
    assert [(model.name, model.source_run_id, model.tags["ratchet.version"]) for model in models] == [
        ("v0123", sft.info.run_id, "v0123")
    ]
    files = client.list_logged_model_artifacts(models[0].model_id)
    assert [file.path for file in files] == ["adapter_model.safetensors"], "the adapter and no base"
    assert json.loads(night.data.tags["mlflow.loggedArtifacts"]) == [{"path": "items.json", "type": "table"}]
    table = mlflow_table(client, night.info.run_id)
    assert table == {"columns": ["item", "loss"], "data": [["a", 1.5], ["b", None]]}
    assert sft.inputs.dataset_inputs[0].dataset.name == "train"
    assert {night.info.status, sft.info.status} == {"FINISHED"}


def test_a_night_is_written_with_nested_runs_curves_and_data(mlflow: str, tmp_path: Path) -> None:
    tracker = Tracker(url=mlflow, experiment="one", journal=tmp_path / "n" / "tracking.jsonl")
    tell(tracker, tmp_path)
    assert tracker.sender.send() == 0
    check(mlflow, "one")
    assert tracker.url_of("night/1") == f"{mlflow}/#/experiments/{tracker.run_id('')}/runs/{tracker.run_id('night/1')}"


def test_while_mlflow_is_down_everything_waits_and_is_sent_later(
    mlflow: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "night" / "tracking.jsonl"
    down_now = Tracker(url=NOWHERE, experiment="two", journal=journal)
    tell(down_now, tmp_path)
    assert down_now.sender.send() == 10
    assert [r.message for r in caplog.records if "does not answer" in r.message][1:] == [], "warned once, not each time"
    assert send_leftovers(tmp_path, url=mlflow, experiment="two") == 0
    check(mlflow, "two")


def test_what_was_sent_may_be_sent_again_and_nothing_doubles(mlflow: str, tmp_path: Path) -> None:
    journal = tmp_path / "night" / "tracking.jsonl"
    tell(Tracker(url=mlflow, experiment="three", journal=journal), tmp_path)
    # As after a kill between the server's answer and our note of it, and on another machine.
    journal.with_suffix(".sent").unlink()
    journal.with_suffix(".runs").unlink()
    assert Tracker(url=mlflow, experiment="three", journal=journal).sender.send() == 0
    check(mlflow, "three")


def test_a_refused_operation_is_left_out_and_said(
    mlflow: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(url=mlflow, experiment="four", journal=tmp_path / "t.jsonl")
    tracker.run("k", name="k")
    tracker.params("k", {"a": 1})
    tracker.params("k", {"a": 2})
    tracker.artifact("k", tmp_path / "gone")
    tracker.metrics("k", {"m": 1.0})
    assert tracker.sender.send() == 0
    refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(refused) == 2
    assert "params" in refused[0] and "artifact" in refused[1]


def night(mlflow: str, experiment: str, folder: Path, number: int) -> Tracker:
    tracker = Tracker(url=mlflow, experiment=experiment, journal=folder / str(number) / "tracking.jsonl")
    tracker.run(f"night/{number}", name=f"night {number}")
    tracker.metrics(f"night/{number}", {"m": float(number)})
    return tracker


def landed(mlflow: str, experiment: str) -> dict[str, tuple[float, str]]:
    """Key of each run -> its metric and status."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    return {run.data.tags["ratchet.key"]: (run.data.metrics["m"], run.info.status) for run in runs}


def test_a_deleted_experiment_is_said_once_and_loses_nothing(
    mlflow: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow)
    first = night(mlflow, "five", tmp_path, 1)
    found = client.get_experiment_by_name("five")
    assert found is not None
    client.delete_experiment(found.experiment_id)
    first.finish("night/1")  # of a night that works while a person deletes
    first.sender.pause_seconds = 0.0
    second = night(mlflow, "five", tmp_path, 2)  # of one that begins afterwards
    second.finish("night/2")
    assert [len(tracker.journal.pending()[1]) for tracker in (first, second)] == [1, 3]
    assert "the experiment five is deleted in MLflow: restore it" in str(first.sender.refusal)
    assert refusals(tmp_path) == {str(second.sender.refusal): 4}
    first.sender.send(now=True)
    said = [record.getMessage() for record in caplog.records if str(first.journal.path) in record.getMessage()]
    assert len(said) == 1 and "restore it" in said[0]
    assert send_leftovers(tmp_path, url=mlflow, experiment="five") == 1, "what keeps the first one keeps all"
    client.restore_experiment(found.experiment_id)
    assert send_leftovers(tmp_path, url=mlflow, experiment="five") == 0
    assert landed(mlflow, "five") == {"night/1": (1.0, "FINISHED"), "night/2": (2.0, "FINISHED")}
    assert refusals(tmp_path) == {}


def test_a_deleted_run_keeps_its_own_night_and_no_other(mlflow: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    client, first = MlflowClient(mlflow), night(mlflow, "six", tmp_path, 1)
    run = first.run_id("night/1")
    assert run is not None
    client.delete_run(run)
    first.finish("night/1")
    first.journal.path.with_suffix(".runs").unlink()  # as on another machine: the deleted run is found all the same
    down_now = Tracker(url=NOWHERE, experiment="six", journal=tmp_path / "2" / "tracking.jsonl")
    down_now.run("night/2", name="night 2")
    down_now.metrics("night/2", {"m": 2.0})
    assert send_leftovers(tmp_path, url=mlflow, experiment="six") == 1
    assert "run night 1 is deleted in MLflow" in next(iter(refusals(tmp_path)))
    assert set(landed(mlflow, "six")) == {"night/2"}
    client.restore_run(run)
    assert send_leftovers(tmp_path, url=mlflow, experiment="six") == 0
    assert landed(mlflow, "six") == {"night/1": (1.0, "FINISHED"), "night/2": (2.0, "RUNNING")}


def test_another_server_under_the_same_address_is_told_everything(tmp_path: Path) -> None:
    """As after a deleted experiment was removed for good: ids of the old one mean nothing."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    tracker = night(url, "seven", tmp_path, 1)
    assert tracker.journal.pending()[1] == []
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking import MlflowClient

    client = MlflowClient(url)
    found = client.get_experiment_by_name("seven")
    run = tracker.run_id("night/1")
    assert found is not None and run is not None
    client.delete_experiment(found.experiment_id)
    store = SqlAlchemyStore(url, str(tmp_path / "artifacts"))
    store._hard_delete_run(run)
    store._hard_delete_experiment(found.experiment_id)
    tracker.finish("night/1")
    assert tracker.journal.pending()[1] == [] and tracker.run_id("night/1") != run
    assert landed(url, "seven") == {"night/1": (1.0, "FINISHED")}


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_a_server_that_refuses_everybody_empties_no_journal(tmp_path: Path, status: int) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"no")

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        tracker = Tracker(url=address, experiment="x", journal=tmp_path / "1" / "tracking.jsonl")
        tracker.run("night/1", name="one")
        server.shutdown()
    assert len(tracker.journal.pending()[1]) == 1
    assert (tracker.sender.refusal is not None) == (status in (401, 403))
    assert len(refusals(tmp_path)) == (status in (401, 403))
