"""Roll the live version back, from Prefect's form.

ratchet rollback --reason "..."          does the same without Prefect
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from deploy.controller.liveness import deliver_if_silent
from deploy.ledger.ledger import Entry
from flows.config.job_files import controller_job
from flows.config.pipeline import tenant_of
from flows.config.rollback_request import RollbackRequest
from flows.stack.open import open_config
from infra.database.open import open_database
from tasks import release, train


@flow(name="rollback")
def rollback(request: RollbackRequest, config: str = "ratchet.yaml") -> Entry:
    """Make the previous version live again and bar the one that is.

    Args:
        request: what to take back, and why.
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = open_config(Path(config))
    base = train.find_base(settings.base_model, settings.places)
    entry: Entry = release.take_back(
        settings.places,
        tenant_of(settings, request.tenant),
        to=request.to,
        actor=request.actor,
        reason=request.reason,
        pause_seconds=settings.canary.pause_seconds,
        prover=controller_job(settings, base),
    )
    deliver_if_silent(open_database(settings.places), settings.alerts)
    return entry
