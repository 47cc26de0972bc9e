"""Ingest feedback, and log it to MLflow: the counts, and the Data Docs, those of a breach above all.

A night writes the same to its own run. An ingest between nights has a run of its own, and so has one that data which
break an expectation stopped, in a night too: the night's run is opened only once something came in.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, Field

from feedback.ingest.run import IngestReport
from feedback.quality.expectations import ExpectationError
from flows.config.pipeline import PipelineConfig
from flows.intake.alerts import alert_spike
from flows.intake.champion_confidence import confidence_of
from flows.intake.mlflow_alerts import send_rest
from infra.database.connect import now
from infra.telemetry.mlflow_tracker import Tracker
from tasks import intake
from tasks.reporting import prefect_artifacts
from training.base_model import Base

DOCS = "data_docs"
"""Folder of a run's artifacts that the Data Docs are in, those of each batch in its own."""


class IngestSummary(IngestReport):
    """What an ingest did, and the same in a sentence."""

    model_config = ConfigDict(serialize_by_alias=True)

    summary: str = Field(serialization_alias="said")


def ingest_all(config: PipelineConfig, base: Base) -> IngestReport:
    """Ingest everything new into the lake; people are told when far more than usual is held.

    Raises:
        ExpectationError: data that stop the run; its Data Docs are on MLflow and linked from Prefect by then.
    """
    try:
        report = intake.ingest(config.ingest, config.places, confidence_of(config, base))
    except ExpectationError as error:
        if error.docs is not None:
            prefect_artifacts.show_links({"Data Docs of the breach": (error.docs / "index.html").absolute().as_uri()})
            _log_run(config, IngestReport(docs=(error.docs,)), failure=str(error))
        raise
    alert_spike(config, report)
    return report


def log_ingest(config: PipelineConfig, report: IngestReport) -> None:
    """Log a run of its own for what an ingest between nights took in; none where there was nothing."""
    if report.batches:
        _log_run(config, report)


def log_report(tracker: Tracker, key: str, report: IngestReport) -> None:
    """Log what came in, by shape and by fate, and the Data Docs, on the run called `key`."""
    counts = {**report.shapes, **report.outcomes}
    tracker.metrics(key, {f"intake.{name}": float(count) for name, count in counts.items()})
    for docs in _existing(report.docs):
        tracker.artifact(key, docs, f"{DOCS}/{docs.name}")


def _log_run(config: PipelineConfig, report: IngestReport, failure: str | None = None) -> None:
    name = f"ingest-{now():%Y%m%d-%H%M%S-%f}"
    key, folder = f"ingest/{name}", config.places.nights_dir / name
    # Where the nights' journals are, so that the next night sends what MLflow was down for.
    tracker = Tracker(url=config.places.mlflow, experiment=config.pipeline, journal=folder / "tracking.jsonl")
    tags = {"ratchet.kind": "ingest", "mlflow.source.name": "flows.ingest", "mlflow.source.type": "JOB"}
    tracker.run(key, name=name, tags=tags | ({"mlflow.note.content": failure[:4000]} if failure else {}))
    log_report(tracker, key, report)
    tracker.finish(key, "FAILED" if failure else "FINISHED")
    waiting = send_rest(config, tracker)
    run = tracker.url_of(key)
    shown = run is not None and bool(_existing(report.docs))
    docs = f"{run}/artifacts/{DOCS}" if shown else None
    prefect_artifacts.show_links({"Ingest on MLflow": run, "Data Docs on MLflow": docs})
    if not waiting:
        shutil.rmtree(folder)  # there is nothing in it but what was sent


def _existing(folders: Sequence[Path]) -> list[Path]:
    return [folder for folder in folders if folder.exists()]
