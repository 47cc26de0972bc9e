"""What an ingest leaves on MLflow and in Prefect, when it takes feedback in and when data stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.config.pipeline import PipelineConfig
from tests.flows.world import Stack, ratchet
from tests.prefect_api import ask_prefect

TOO_FEW = {
    "name": "a-large-batch",
    "expectation": "ExpectTableRowCountToBeBetween",
    "arguments": {"min_value": 10_000},
    "severity": "stop",
}


def runs(config: PipelineConfig) -> list[Any]:
    """The pipeline's runs on MLflow, the latest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(config.places.mlflow)
    experiment = client.get_experiment_by_name(config.pipeline)
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def pages(config: PipelineConfig, run: Any) -> list[str]:
    """Folders of Data Docs that a run has."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(config.places.mlflow)
    return [file.path for file in client.list_artifacts(run.info.run_id, "data_docs")]


def linked(config: PipelineConfig, key: str) -> str:
    """What Prefect's latest artifact of that key says."""
    wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
    [found] = ask_prefect(config.places.prefect_api, "POST", "/artifacts/filter", json=wanted)
    return str(found["data"])


def test_an_ingest_between_nights_logs_counts_and_the_data_docs_of_every_batch(
    running_stack: Stack, tmp_path: Path
) -> None:
    config = running_stack.neighbour(tmp_path, pipeline="intake", ingest={"batch_events": 50, "ahead": False})
    file = tmp_path / "ratchet.yaml"
    ratchet("run", "ingest", config=file)
    [run] = runs(config)
    assert (run.info.status, run.data.tags["ratchet.kind"]) == ("FINISHED", "ingest")
    assert run.data.metrics["intake.accepted"] > 0 and run.data.metrics["intake.completion"] > 0
    assert pages(config, run) == ["data_docs/00000001", "data_docs/00000002", "data_docs/00000003"]
    assert f"{run.info.run_id}/artifacts/data_docs)" in linked(config, "data-docs-on-mlflow")
    assert not list(config.places.nights_dir.glob("ingest-*"))  # all was sent
    ratchet("run", "ingest", config=file)
    assert len(runs(config)) == 1  # nothing new, nothing to show


@pytest.mark.parametrize("flow", ["ingest", pytest.param("nightly", marks=pytest.mark.slow)])
def test_data_that_stop_a_run_leave_their_data_docs_where_people_look(
    running_stack: Stack, tmp_path: Path, flow: str
) -> None:
    config = running_stack.neighbour(tmp_path, pipeline=f"breach-{flow}", ingest={"expectations": {"also": [TOO_FEW]}})
    done = ratchet("run", flow, config=tmp_path / "ratchet.yaml", check=False)
    assert done.returncode != 0
    [run] = runs(config)
    assert run.info.status == "FAILED" and "a-large-batch" in run.data.tags["mlflow.note.content"]
    assert pages(config, run) == ["data_docs/00000001"]
    assert f"{run.info.run_id}/artifacts/data_docs)" in linked(config, "data-docs-on-mlflow")
    assert "data_docs/00000001/index.html)" in linked(config, "data-docs-of-the-breach")
