"""A night that judges nothing: what came in still reaches MLflow, and the live champion may be scored again.

A night in which nothing came in either leaves no run: it costs seconds, and there would be nothing to see.
"""

from __future__ import annotations

from deploy.ledger.ledger import Standing
from feedback.ingest.run import IngestReport
from feedback.quality.drift import DriftReport
from flows.intake.mlflow_alerts import send_rest
from flows.night.ending import end_early
from flows.night.record import RESCORE, Night
from flows.night.rescoring import rescore_anyway
from flows.night.steps import night_key
from flows.night.tracking import log_intake, open_run, open_tracking, pages
from tasks.reporting import prefect_artifacts
from training.base_model import Base


def end_quietly(
    night: Night, base: Base, standing: Standing, report: IngestReport, drift: DriftReport, name: str, reason: str
) -> None:
    """End a night without a verdict. `name`: its snapshot, or nothing."""
    rescore_anyway(night, base, standing, report, drift, name)
    if not night.has(RESCORE) and (report.batches or drift.columns):
        _show(night, report, drift, name, reason)
    end_early(night, reason)


def _show(night: Night, report: IngestReport, drift: DriftReport, name: str, reason: str) -> None:
    tracker, key = open_tracking(night), night_key(night)
    open_run(tracker, night, name)
    log_intake(tracker, night, report, drift)
    tracker.tags(key, {"ratchet.decision": "none", "mlflow.note.content": reason[:4000]})
    tracker.finish(key)
    send_rest(night.config, tracker)
    prefect_artifacts.show_links(pages(tracker, night, report, judged=False))
