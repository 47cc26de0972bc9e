"""Take in new feedback between nights.

ratchet run ingest
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.opened import opened_config
from tasks import intake, notify


@flow(name="ingest")
def ingest(config: str = "ratchet.yaml") -> dict[str, Any]:
    """Bring everything new through redaction, duplicates, abuse and expectations into the lake.

    Args:
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = opened_config(Path(config))
    report = intake.ingest(settings.ingest, settings.places)
    notify.show_intake(report)
    return {**report.model_dump(mode="json"), "said": intake.said_of(report)}
