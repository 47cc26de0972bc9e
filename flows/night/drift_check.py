"""Check for drift: compare what is new with what the champion was trained on, and alert when it moved."""

from __future__ import annotations

from deploy.ledger.ledger import ReleaseState, history
from deploy.nights.steps import SNAPSHOT
from feedback.quality.drift import DriftReport, undetermined
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.night.record import Night
from flows.night.should_train import last_night_with_verdict
from infra.alerts.outbox import Alert
from infra.database.open import open_database
from infra.errors import NotFound
from tasks import intake, notify


def check_drift(night: Night, snapshot: str | None, standing: ReleaseState) -> DriftReport:
    """Compare what is new with the champion's snapshot; without one (the base model serves) there is nothing to do."""
    config = night.config
    reference = _snapshot_of(night, standing) if snapshot else None
    if snapshot is None or reference is None:
        return undetermined("the champion was trained on no snapshot of this pipeline")
    last = last_night_with_verdict(night)
    if snapshot in (reference.id, last.result(SNAPSHOT) if last is not None else None):
        rows = undetermined("nothing is new since this was looked at", "rows")
    else:
        cut = load_snapshot(config.places.snapshots_dir / snapshot)
        rows = intake.drift(cut, reference, night.folder / "drift.html", config.drift)
    page = night.folder / "traffic.html"
    report = rows.beside(intake.traffic(reference, config.places, page, config.drift, config.ingest.redact))
    if report.drifted:
        notify.alert(config.places, config.alerts, _alert(night, report, reference))
    return report


def _snapshot_of(night: Night, standing: ReleaseState) -> Snapshot | None:
    for line in reversed(history(open_database(night.places), night.tenant)):
        name = line.evidence.gate.snapshot if line.evidence.gate else None
        if line.version == standing.champion and name:
            try:
                return load_snapshot(night.places.snapshots_dir / str(name))
            except NotFound:
                return None
    return None


def _alert(night: Night, report: DriftReport, reference: Snapshot) -> Alert:
    moved = ", ".join(
        f"{name} {value:.2f}" for name, value in sorted(report.columns.items(), key=lambda column: -column[1])
    )
    return Alert(
        kind="drift",
        severity="warning",
        tenant=night.tenant,
        title=f"{report.share or 0.0:.0%} of what is looked at has moved since the champion was trained",
        text=f"Population stability index against snapshot {reference.id}: {moved}.",
        next_step="look at the drift report on the night's MLflow page; this releases nothing by itself",
        payload={"night_id": night.night_id, "share": report.share, "columns": report.columns, "since": reference.id},
        dedupe_key=f"drift/{night.tenant}/{reference.id}",
    )
