"""Detect that something is wrong with ingestion: far more held than usual, or feedback that nobody takes in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from pydantic import Field
from sqlalchemy import Engine, func, select

from feedback.lake.counts import Counts, dealt_with, outcomes, quarantined
from feedback.lake.lake import Lake, Manifest
from feedback.sources.watermark import store_mismatch
from feedback.store.store import Store, feedback, feedback_ready
from infra.settings import Config


class IngestHealthConfig(Config):
    """When people are told about ingestion."""

    spike_events: int = Field(default=30, ge=1)
    """Fewest held events of one ingest that make a spike."""
    spike_rise: float = Field(default=0.15, gt=0, le=1)
    """By how much the share of held events must exceed its usual one."""
    usual_batches: int = Field(default=20, ge=1)
    """How many batches before are the usual."""
    stale_hours: float = Field(default=30.0, gt=0)
    """Feedback that waits longer than this to be ingested means that ingestion stands still."""
    silent_hours: float | None = Field(default=None, gt=0)
    """Hours without any new feedback after which people are told; None: never, for some desks sleep at week-ends."""


class QuarantineSpike(Config):
    """Far more was held than usual."""

    held: int
    """Events held."""
    events: int
    """Events dealt with."""
    usual: float
    """Share held before (the median of earlier batches)."""
    reasons: dict[str, int]
    """Held events by reason."""


def quarantine_spike(counts: Counts, earlier: Sequence[Manifest], config: IngestHealthConfig) -> QuarantineSpike | None:
    """Tell whether an ingest with these counts held far more than the batches before it."""
    held, events = outcomes(counts).get("quarantined", 0), dealt_with(counts)
    usual = median(_share(m.counts) for m in earlier) if earlier else 0.0
    if held < config.spike_events or held / events < usual + config.spike_rise:
        return None
    return QuarantineSpike(held=held, events=events, usual=usual, reasons=dict(quarantined(counts)))


def batches_before(lake: Lake, first: int, config: IngestHealthConfig) -> list[Manifest]:
    """Return the manifests of the batches before number `first`, as many as are the usual."""
    return [lake.manifest(number) for number in range(max(1, first - config.usual_batches), first)]


def ingest_stale(database: Engine, lake: Lake, at: datetime, config: IngestHealthConfig) -> str | None:
    """Say why ingestion stands still, in a sentence; None where it does not."""
    last = lake.last()
    cursor = last.cursor if last else 0
    restored = store_mismatch(Store(database), last) if last else None
    if restored is not None:
        return f"the database is not the one that the lake was filled from: {restored}"
    waiting = (
        select(func.min(feedback.c.received_at), func.count())
        .join(feedback_ready, feedback_ready.c.feedback_seq == feedback.c.seq)
        .where(feedback_ready.c.seq > cursor)
    )
    with database.connect() as connection:
        oldest, count = connection.execute(waiting).one()
        latest = connection.execute(select(func.max(feedback.c.received_at))).scalar_one()
    if oldest is not None and at - oldest > timedelta(hours=config.stale_hours):
        hours = (at - oldest).total_seconds() / 3600
        return f"{count} feedback wait to be ingested, the oldest for {hours:.0f} hours"
    if config.silent_hours is not None and latest is not None and at - latest > timedelta(hours=config.silent_hours):
        return f"no feedback has come since {latest:%Y-%m-%d %H:%M} UTC"
    return None


def _share(counts: Counts) -> float:
    return outcomes(counts).get("quarantined", 0) / max(1, dealt_with(counts))
