"""Write an alert unless it stands already, without taking the write lock to find out."""

from __future__ import annotations

from sqlalchemy import Engine, select

from infra.alerts.outbox import Alert, enqueue, outbox
from infra.database.connect import begin_write


def is_told(database: Engine, dedupe_key: str | None) -> bool:
    """Check whether an alert with this key stands in the outbox."""
    with database.connect() as connection:
        query = select(outbox.c.alert_id).where(outbox.c.dedupe_key == dedupe_key)
        return connection.execute(query).first() is not None


def alert_once(database: Engine, alert: Alert) -> bool:
    """Enqueue an alert that a look every second would write again; False when its key stands already."""
    if is_told(database, alert.dedupe_key):
        return False
    with begin_write(database) as connection:
        return enqueue(connection, alert)
