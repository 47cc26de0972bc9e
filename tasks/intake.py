"""From what users said to a snapshot."""

from __future__ import annotations

import logging
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from feedback.ingest import IngestConfig, IngestReport, run_ingest
from feedback.lake import Lake
from feedback.store import Store
from infra.settings import Config, Places
from tasks.opened import database

log = logging.getLogger(__name__)


@task(name="ingest", retries=2, retry_delay_seconds=[5, 30], cache_policy=NO_CACHE)
def ingest(config: IngestConfig, places: Places) -> IngestReport:
    """Everything new, validated, into the lake. Twice, or killed anywhere, loses and doubles nothing."""
    report = run_ingest(Store(database(places)), Lake(places.lake_dir), config.sources, config, progress=_tell)
    log.info("ingest: %s", said_of(report))
    return report


def said_of(report: IngestReport) -> str:
    """One sentence for people."""
    if not report.batches:
        return f"nothing new ({report.parked} feedback still wait for their interaction)"
    fates = ", ".join(f"{count} {fate}" for fate, count in report.counts.get("fates", {}).items())
    shapes = ", ".join(f"{count} {shape}" for shape, count in report.shapes.items()) or "none"
    return f"{fates}; new examples: {shapes}"


def _tell(step: str, done: int, total: int) -> None:
    log.info("ingest: %s, %s of %s", step, done, total)
