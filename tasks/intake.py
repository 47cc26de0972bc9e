"""From what users said to a snapshot."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from feedback.abuse.confidence import Confidence
from feedback.examples import Example
from feedback.ingest.run import IngestConfig, IngestReport, run_ingest
from feedback.lake.lake import lake_of
from feedback.quality.drift import DriftConfig, DriftReport
from feedback.quality.drift import feedback_drift as compare
from feedback.quality.expectations import ExpectationError
from feedback.quality.traffic_drift import traffic_drift
from feedback.redaction.redact import RedactConfig
from feedback.snapshots.gate_items import gate_items, newest, shown_items
from feedback.snapshots.snapshot import Snapshot, SnapshotConfig, cut_snapshot
from feedback.store.store import Store
from infra.artifact import atomic_write, canonical_json
from infra.database.connect import now
from infra.database.open import open_database
from infra.errors import CorruptArtifact, NotFound, UserError
from infra.settings import Places

log = logging.getLogger(__name__)


def _may_pass(_: object, __: object, state: State[object]) -> bool:
    """Whether another try could help: never against a mistake, data that break an expectation, or what only a person
    can restore."""
    return not isinstance(state.result(raise_on_failure=False), UserError | ExpectationError | CorruptArtifact)


@task(name="ingest", retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_may_pass, cache_policy=NO_CACHE)
def ingest(config: IngestConfig, places: Places, confidence: Confidence | None = None) -> IngestReport:
    """Everything new, validated, into the lake. Twice, or killed anywhere, loses and doubles nothing."""
    store, lake = Store(open_database(places)), lake_of(places)
    report = run_ingest(store, lake, config.sources, config, progress=_tell, champion_confidence=confidence)
    log.info("ingest: %s", said_of(report))
    return report


@task(name="snapshot", cache_policy=NO_CACHE)
def snapshot(config: SnapshotConfig, places: Places, tenant: str) -> str | None:
    """Name of an immutable cut of the lake, split for training and gate; None when nothing was ever accepted."""
    try:
        cut = cut_snapshot(lake_of(places), places.snapshots_dir, config, tenant=tenant)
    except NotFound as error:
        log.info("no snapshot: %s", error)
        return None
    log.info("snapshot %s: %s", cut.id, canonical_json(cut.counts))
    return cut.id


@task(name="drift", cache_policy=NO_CACHE)
def drift(cut: Snapshot, before: Snapshot, html: Path, config: DriftConfig) -> DriftReport:
    """Whether the training rows that are new since then have moved away from those the champion was trained on."""
    known = _rows(before)
    ids = {example.example_id for example in known}
    return compare([example for example in _rows(cut) if example.example_id not in ids], known, html, config)


@task(name="traffic-drift", cache_policy=NO_CACHE)
def traffic(before: Snapshot, places: Places, html: Path, config: DriftConfig, redact: RedactConfig) -> DriftReport:
    """Whether all traffic, judged or not, has moved since the newest row that the champion was trained on."""
    at = now()
    border = newest(_rows(before), at)
    return traffic_drift(
        open_database(places), before.tenant, border=border, now=at, html=html, config=config, redact=redact
    )


def _rows(cut: Snapshot) -> list[Example]:
    return [Example.model_validate_json(line) for line in cut.train.read_text(encoding="utf-8").splitlines()]


def write_questions(cut: Snapshot, folder: Path) -> int:
    """The gate's items and those that people may be shown, as the evaluation reads them; how many gate items.

    Written once: how often an item was used before must not change when the night is taken up again.
    """
    questions, shown = folder / "items.jsonl", folder / "shown.jsonl"
    if not questions.exists():
        atomic_write(shown, "".join(canonical_json(item) + "\n" for item in shown_items(cut)))
        atomic_write(questions, "".join(canonical_json(item) + "\n" for item in gate_items(cut)))
    return len(questions.read_text().splitlines())


def said_of(report: IngestReport) -> str:
    """One sentence for people."""
    if not report.batches:
        return f"nothing new ({report.parked} feedback still wait for their interaction)"
    fates = ", ".join(f"{count} {fate}" for fate, count in report.counts.get("fates", {}).items()) or "no new feedback"
    unread = sum(report.counts.get("quarantined rows", {}).values())
    fates += f", {unread} rows of files that cannot be read quarantined" if unread else ""
    shapes = ", ".join(f"{count} {shape}" for shape, count in report.shapes.items()) or "none"
    differ = report.counts.get("duplicates", {}).get("contradictions", 0)
    more = f"; {differ} contradict an earlier near copy (`ratchet data contradictions`)" if differ else ""
    return f"{fates}; new examples: {shapes}{more}"


def _tell(step: str, done: int, total: int) -> None:
    log.info("ingest: %s, %s of %s", step, done, total)
