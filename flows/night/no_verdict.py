"""End a run without training: log the ingest to MLflow and, if due, re-score the champion.

A night in which nothing came in either leaves no run: it costs seconds, and there would be nothing to see.
"""

from __future__ import annotations

from deploy.ledger.ledger import ReleaseState
from deploy.nights.steps import RESCORE
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from flows.intake.mlflow_alerts import send_rest
from flows.night.ending import end_early
from flows.night.record import Night
from flows.night.rescoring import rescore_if_due
from flows.night.tracking import links_of, log_ingest, open_run, open_tracker
from tasks.reporting import prefect_artifacts
from training.base_model import Base


def end_without_verdict(
    night: Night,
    base: Base,
    standing: ReleaseState,
    report: IngestReport,
    drift: DriftReport,
    snapshot: str | None,
    reason: str,
) -> None:
    """End a night without a verdict."""
    rescore_if_due(night, base, standing, report, drift, snapshot)
    if not night.record.has(RESCORE) and (report.batches or drift.columns):
        _log(night, report, drift, snapshot, reason)
    end_early(night, reason)


def _log(night: Night, report: IngestReport, drift: DriftReport, snapshot: str | None, reason: str) -> None:
    tracker, key = open_tracker(night), night.run_key
    open_run(tracker, night, snapshot)
    log_ingest(tracker, night, report, drift)
    tracker.tags(key, {"ratchet.decision": "none", "mlflow.note.content": reason[:4000]})
    tracker.finish(key)
    send_rest(night.config, tracker)
    prefect_artifacts.show_links(links_of(tracker, night, report, judged=False))
