"""Log a night on MLflow: open its run, describe it, close it. Curves and scorecards are written by the tasks."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.ledger.ledger import Entry
from evaluation.gate.verdict import Verdict
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from feedback.snapshots.snapshot import Snapshot
from flows.intake.mlflow_alerts import alert_refusals, send_rest
from flows.intake.run import DOCS, log_report
from flows.night.record import Night
from infra.source_tree import SOURCE_ROOT
from infra.telemetry.mlflow_sender import send_leftovers
from infra.telemetry.mlflow_tracker import Tracker
from infra.telemetry.system_metrics import sampled

log = logging.getLogger(__name__)


def open_tracker(night: Night) -> Tracker:
    """Open the night's tracker; what earlier nights could not send is sent first."""
    url, pipeline = night.places.mlflow, night.config.pipeline
    waiting = send_leftovers(night.places.nights_dir, url=url, experiment=pipeline)
    if waiting:
        log.warning("%s operations of earlier nights still wait for MLflow at %s", waiting, url)
        alert_refusals(night.config)
    return Tracker(url=url, experiment=pipeline, journal=night.folder / "tracking.jsonl")


def console_page(night: Night) -> str:
    """Return the address of the night's page on the console."""
    console = night.config.alerts.console_url or f"{night.places.gateway_url}/console"
    return f"{console.rstrip('/')}#nights/{night.night_id}"


def log_night(tracker: Tracker, night: Night, report: IngestReport, snapshot: Snapshot, drift: DriftReport) -> None:
    """Open the night's run with what it was asked for and what it works on."""
    key = open_run(tracker, night, snapshot.id)
    tracker.params(
        key,
        {
            "base_model": night.config.base_model,
            "training": night.training.model_dump(mode="json", exclude={"recipes"}),
            "gate": night.gate.model_dump(mode="json"),
            "snapshot": snapshot.id,
        },
    )
    for part in ("train", "validation", "rolling", "frozen"):
        rows = snapshot.counts.get(part, {})
        context = "training" if part == "train" else "evaluation" if part in ("rolling", "frozen") else part
        name = f"{snapshot.id}-{part}"
        tracker.dataset(key, name=name, digest=snapshot.digest, source=str(snapshot.path), context=context, rows=rows)
    log_ingest(tracker, night, report, drift)


def open_run(tracker: Tracker, night: Night, snapshot: str | None) -> str:
    """Open the night's own run; its key. `snapshot`: the id, None where none was cut."""
    key = night.run_key
    tags = {"ratchet.kind": "night", "ratchet.night": night.night_id, "ratchet.tenant": night.tenant, **code_version()}
    tracker.run(key, name=night.night_id, tags=tags | ({"ratchet.snapshot": snapshot} if snapshot else {}))
    return key


def log_ingest(tracker: Tracker, night: Night, report: IngestReport, drift: DriftReport) -> None:
    """Log what came in, its Data Docs, and the drift reports on the night's run."""
    key = night.run_key
    log_report(tracker, key, report)
    for page in (drift.html, drift.traffic_html):
        if page is not None and page.exists():
            tracker.artifact(key, page, "drift")
    if drift.share is not None:
        tracker.metrics(key, {"drift.share": drift.share})


def code_version() -> dict[str, str]:
    """Say which code ran in MLflow's own tags: entry point, and the commit where this is a checkout."""
    tags = {"mlflow.source.name": "flows.nightly", "mlflow.source.type": "JOB"}
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(SOURCE_ROOT), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        tags["mlflow.source.git.commit"] = done.stdout.strip()
    return tags


@contextmanager
def system_metrics_logged(tracker: Tracker, night: Night) -> Iterator[None]:
    """Log the machine's load as system metrics of the night's run, while the block runs."""
    began = time.time()
    with sampled(
        # The step is the second of the night, so that a resumed night draws one curve.
        lambda values, _: tracker.metrics(night.run_key, values, step=int(time.time() - began)),
        night.places.home_dir,
    ):
        yield


def links_of(tracker: Tracker, night: Night, report: IngestReport, *, judged: bool) -> dict[str, str | None]:
    """Return the addresses of what the night left to look at; None where there is nothing."""
    run = tracker.url_of(night.run_key)
    return {
        "MLflow run": run,
        "scorecard on MLflow": f"{run}/artifacts/evaluation/report.html" if run and judged else None,
        "Data Docs on MLflow": f"{run}/artifacts/{DOCS}" if run and report.data_docs is not None else None,
        "console": console_page(night),
    }


def log_verdict(tracker: Tracker, night: Night, verdict: Verdict, entry: Entry) -> None:
    """Tag the runs with what was decided, and close the night's."""
    key = night.run_key
    tracker.tags(
        key,
        {
            "ratchet.decision": verdict.decision,
            "ratchet.winner": verdict.winner or "none",
            "ratchet.ledger": f"{entry.seq}: {entry.action} {entry.version}",
            "mlflow.note.content": "\n\n".join(verdict.reasons)[:4000],
        },
    )
    for challenger in verdict.challengers:
        run = f"{key}/{challenger.label}"
        tracker.tags(run, {"ratchet.decision": challenger.decision})
        if challenger.gain is not None:
            tracker.metrics(run, {"gate.gain": challenger.gain, "gate.p_value": challenger.adjusted_p})
    tracker.finish(key)
    send_rest(night.config, tracker)
