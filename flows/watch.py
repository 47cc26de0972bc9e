"""Show in Prefect what is live and how its watch stands, and alert when nobody watches.

    ratchet run watch

The controller watches, takes back and moves forward by itself; this flow only looks.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from deploy.controller.liveness import silence_alert
from deploy.controller.summary import WatchReport
from flows.intake.alerts import alert_staleness
from flows.intake.mlflow_alerts import alert_refusals
from flows.stack.open import open_config
from infra.database.open import open_database
from tasks import notify, watching
from tasks.reporting import prefect_artifacts


@flow(name="watch")
def watch(config: str = "ratchet.yaml") -> WatchReport:
    """Show what is live for each tenant, and alert when the controller is silent.

    Args:
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = open_config(Path(config))
    summaries = {tenant: watching.look_at(settings.places, tenant) for tenant in settings.tenants}
    prefect_artifacts.show_releases(summaries)
    silent = silence_alert(open_database(settings.places), seconds=120)
    if silent is not None:
        notify.alert(settings.places, settings.alerts, silent)
    stale = alert_staleness(settings)
    alert_refusals(settings)
    return WatchReport(tenants=summaries, controller="silent" if silent else "alive", ingestion=stale or "up to date")
