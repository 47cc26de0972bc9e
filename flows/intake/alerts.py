"""Alert people about ingestion: a quarantine spike, and ingestion that stands still."""

from __future__ import annotations

from feedback.ingest.run import IngestReport
from feedback.lake.lake import lake_of
from feedback.quality.ingest_health import batches_before, ingest_stale, quarantine_spike
from flows.config.pipeline import PipelineConfig
from infra.alerts.outbox import Alert
from infra.database.connect import now
from infra.database.open import open_database
from tasks import notify


def alert_spike(config: PipelineConfig, report: IngestReport) -> None:
    """Alert when this ingest held far more than usual."""
    if not report.batches:
        return
    watch, lake = config.ingest.watch, lake_of(config.places)
    spiked = quarantine_spike(report.counts, batches_before(lake, report.batches[0], watch), watch)
    if spiked is None:
        return
    reasons = ", ".join(
        f"{count} {code}" for code, count in sorted(spiked.reasons.items(), key=lambda reason: -reason[1])
    )
    alert = Alert(
        kind="quarantine_spike",
        severity="warning",
        title=f"{spiked.held} of {spiked.events} feedback events were held ({spiked.usual:.0%} is usual)",
        text=f"By reason: {reasons}.",
        next_step="`ratchet quarantine list` shows them; release what is honest with `ratchet quarantine accept`",
        payload=spiked.model_dump(mode="json"),
        dedupe_key=f"quarantine_spike/{report.batches[-1]}",
    )
    notify.alert(config.places, config.alerts, alert)


def alert_staleness(config: PipelineConfig) -> str | None:
    """Alert, once a day, when feedback waits and nobody takes it in. Returns what was said."""
    why = ingest_stale(open_database(config.places), lake_of(config.places), now(), config.ingest.watch)
    if why is None:
        return None
    alert = Alert(
        kind="ingest_stale",
        severity="warning",
        title="nobody takes the feedback in",
        text=f"{why[0].upper()}{why[1:]}.",
        next_step="`ratchet status` says whether the scheduled runs still run; `ratchet run ingest` takes it in now",
        dedupe_key=f"ingest_stale/{now():%Y-%m-%d}",
    )
    notify.alert(config.places, config.alerts, alert)
    return why
