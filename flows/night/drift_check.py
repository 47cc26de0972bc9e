"""The night's look at drift: what is new against what the champion was trained on, and an alert when it moved."""

from __future__ import annotations

from deploy.ledger.ledger import Standing, history
from feedback.quality.drift import DriftReport, undetermined
from feedback.snapshots.snapshot import Snapshot, load_snapshot
from flows.night.record import Night
from flows.night.should_train import last_judged
from infra.alerts.outbox import Alert
from infra.database.open import open_database
from infra.errors import NotFound
from tasks import intake, notify


def look_for_drift(night: Night, snapshot: str, standing: Standing) -> DriftReport:
    """Compare what is new with the champion's snapshot; without one (the base model serves) there is nothing to do."""
    config = night.config
    before = _snapshot_of(night, standing) if snapshot else None
    if before is None:
        return undetermined("the champion was trained on no snapshot of this pipeline")
    last = last_judged(night)
    if snapshot in (before.id, last.steps.get("snapshot") if last is not None else None):
        rows = undetermined("nothing is new since this was looked at", "rows")
    else:
        cut = load_snapshot(config.places.snapshots_dir / snapshot)
        rows = intake.drift(cut, before, night.folder / "drift.html", config.drift)
    page = night.folder / "traffic.html"
    report = rows.beside(intake.traffic(before, config.places, page, config.drift, config.ingest.redact))
    if report.drifted:
        notify.alert(config.places, config.alerts, _alert(night, report, before))
    return report


def _snapshot_of(night: Night, standing: Standing) -> Snapshot | None:
    for line in reversed(history(open_database(night.config.places), night.tenant)):
        name = (line.evidence.get("gate") or {}).get("snapshot")
        if line.version == standing.champion and name:
            try:
                return load_snapshot(night.config.places.snapshots_dir / str(name))
            except NotFound:
                return None
    return None


def _alert(night: Night, report: DriftReport, before: Snapshot) -> Alert:
    moved = ", ".join(f"{name} {value:.2f}" for name, value in sorted(report.columns.items(), key=lambda one: -one[1]))
    return Alert(
        kind="drift",
        severity="warning",
        tenant=night.tenant,
        title=f"{report.share or 0.0:.0%} of what is looked at has moved since the champion was trained",
        text=f"Population stability index against snapshot {before.id}: {moved}.",
        next_step="look at the drift report on the night's MLflow page; this releases nothing by itself",
        payload={"night_id": night.night_id, "share": report.share, "columns": report.columns, "since": before.id},
        dedupe_key=f"drift/{night.tenant}/{before.id}",
    )
