"""Show in Prefect what is live and how its watch stands, and alert when nobody watches.

    ratchet run watch

The controller watches, takes back and moves forward by itself; this flow only looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.intake.alerts import tell_of_staleness
from flows.intake.mlflow_alerts import tell_of_refusals
from flows.stack.open import opened_config
from tasks import notify, watching
from tasks.standing import controller_silent


@flow(name="watch")
def watch(config: str = "ratchet.yaml") -> dict[str, Any]:
    """Show what is live for each tenant, and alert when the controller is silent.

    Args:
        config: path of the pipeline's config file, on the machine that runs this.
    """
    settings = opened_config(Path(config))
    seen = {tenant: watching.look_at(settings.places, tenant) for tenant in settings.tenants}
    notify.show_standing(seen)
    silent = controller_silent(settings.places, seconds=120)
    if silent is not None:
        notify.alert(settings.places, settings.alerts, silent)
    stale = tell_of_staleness(settings)
    tell_of_refusals(settings)
    return {"tenants": seen, "controller": "silent" if silent else "alive", "ingestion": stale or "up to date"}
