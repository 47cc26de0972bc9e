"""Alert people of what the ledger does not say, as a task."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from deploy.controller.liveness import deliver_if_silent
from infra.alerts.config import AlertsConfig
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write
from infra.database.open import open_database
from infra.settings import Places


@task(name="alert", cache_policy=NO_CACHE)
def alert(places: Places, config: AlertsConfig, message: Alert) -> None:
    """Write an alert, and send it ourselves when no controller is alive to do it."""
    database = open_database(places)
    with begin_write(database) as connection:
        enqueue(connection, message)
    deliver_if_silent(database, config)
