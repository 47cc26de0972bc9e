"""Take feedback into the lake, cut snapshots and measure drift, as tasks."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from feedback.abuse.confidence import Confidence
from feedback.examples import Example
from feedback.ingest.run import IngestConfig, IngestReport, run_ingest
from feedback.ingest.summary import summarise
from feedback.lake.lake import lake_of
from feedback.quality.drift import DriftConfig, DriftReport
from feedback.quality.drift import feedback_drift as compare
from feedback.quality.expectations import ExpectationError
from feedback.quality.traffic_drift import traffic_drift
from feedback.redaction.redact import RedactConfig
from feedback.snapshots.gate_items import newest
from feedback.snapshots.snapshot import Snapshot, SnapshotConfig, cut_snapshot
from feedback.store.store import Store
from infra.artifact import canonical_json
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.settings import Places

log = logging.getLogger(__name__)


def _is_worth_retrying(_: object, __: object, state: State[object]) -> bool:
    """Whether another try could help: not against a mistake, a broken expectation, or what only a person restores."""
    return not isinstance(state.result(raise_on_failure=False), UserError | ExpectationError | CorruptArtifact)


@task(
    name="ingest", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_is_worth_retrying, cache_policy=NO_CACHE
)
def ingest(config: IngestConfig, places: Places, confidence: Confidence | None = None) -> IngestReport:
    """Ingest everything new, validated, into the lake. Twice, or killed anywhere, loses and doubles nothing."""
    store, lake = Store(open_database(places)), lake_of(places)
    report = run_ingest(store, lake, config.sources, config, progress=_log_progress, champion_confidence=confidence)
    log.info("ingest: %s", summarise(report))
    return report


@task(name="snapshot", cache_policy=NO_CACHE)
def snapshot(config: SnapshotConfig, places: Places, tenant: str) -> str | None:
    """Cut an immutable snapshot of the lake, split for training and gate; its name, None while there is no data."""
    try:
        cut = cut_snapshot(lake_of(places), places.snapshots_dir, config, tenant=tenant)
    except NotFound as error:
        log.info("no snapshot: %s", error)
        return None
    log.info("snapshot %s: %s", cut.id, canonical_json(cut.counts))
    return cut.id


@task(name="drift", cache_policy=NO_CACHE)
def drift(cut: Snapshot, reference: Snapshot, html: Path, config: DriftConfig) -> DriftReport:
    """Measure whether the new training rows have drifted from those that the champion was trained on."""
    known = _rows(reference)
    ids = {example.example_id for example in known}
    return compare([example for example in _rows(cut) if example.example_id not in ids], known, html, config)


@task(name="traffic-drift", cache_policy=NO_CACHE)
def traffic(reference: Snapshot, places: Places, html: Path, config: DriftConfig, redact: RedactConfig) -> DriftReport:
    """Measure whether all traffic, judged or not, has drifted since the newest row that the champion was trained on."""
    at = now()
    border = newest(_rows(reference), at)
    return traffic_drift(
        open_database(places), reference.tenant, border=border, now=at, html=html, config=config, redact=redact
    )


def _rows(cut: Snapshot) -> list[Example]:
    return [Example.model_validate_json(line) for line in cut.train.read_text(encoding="utf-8").splitlines()]


def _log_progress(step: str, done: int, total: int) -> None:
    log.info("ingest: %s, %s of %s", step, done, total)
