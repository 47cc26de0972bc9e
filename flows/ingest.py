"""Ingest new feedback between nights.

ratchet run ingest
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from feedback.ingest.summary import summarise
from flows.intake.run import IngestSummary, ingest_all, log_ingest
from flows.stack.open import open_config
from tasks import train
from tasks.reporting import prefect_artifacts


@flow(name="ingest")
def ingest(config: str = "ratchet.yaml") -> IngestSummary:
    """Bring everything new through redaction, duplicates, abuse and expectations into the lake.

    Args:
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = open_config(Path(config))
    base = train.find_base(settings.base_model, settings.places)
    report = ingest_all(settings, base)
    prefect_artifacts.show_intake(report)
    log_ingest(settings, report)
    return IngestSummary(**dict(report), summary=summarise(report))
