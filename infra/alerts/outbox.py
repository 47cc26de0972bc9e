"""Write alerts to an outbox in the transaction that made them true, and deliver them at least once.

with begin_write(database) as connection:
    ...                                       # what happened
    enqueue(connection, Alert(kind="promoted", title="v1 is live", ...))
deliver(database, config.alerts)              # the controller does this every second (infra/alerts/delivery.py)
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue
from pydantic_core import to_jsonable_python
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    RowMapping,
    String,
    Table,
    Text,
    and_,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from infra.alerts.config import AlertsConfig
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.settings import Config

Severity = Literal["info", "warning", "critical"]

outbox = Table(
    "alerts",
    metadata,
    Column("alert_id", String(64), primary_key=True),
    Column("kind", String(60), nullable=False),
    Column("severity", String(20), nullable=False),
    Column("tenant", String(200)),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    Column("links", JSON, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("dedupe_key", String(300), unique=True),
    Column("created_at", UtcDateTime, nullable=False, index=True),
)

deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert_id", String(64), ForeignKey("alerts.alert_id"), primary_key=True),
    Column("destination", String(200), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_try", UtcDateTime),
    Column("delivered_at", UtcDateTime),
    Column("last_error", Text),
)


class Alert(Config):
    """Something that people must know."""

    alert_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Its id; a receiver that has seen it drops the repetition."""
    kind: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)
    """What happened: promoted, rolled_back, held, incident, quarantine_spike, drift, run_failed..."""
    severity: Severity = "info"
    """info: for the record. warning: look at it today. critical: look at it now."""
    tenant: str | None = None
    """Whose release or data it is about; None: all."""
    title: str
    """One line."""
    text: str = ""
    """What happened and why, in a few sentences."""
    next_step: str = ""
    """What the reader can do now, with the command."""
    links: Mapping[str, str] = {}
    """Label -> URL of where to look."""
    payload: Annotated[Mapping[str, JsonValue], BeforeValidator(to_jsonable_python)] = {}
    """Facts for machines, as JSON; a model of them becomes its JSON."""
    dedupe_key: str | None = Field(default=None, max_length=300)
    """An alert with the key of an earlier one is not written again."""
    created_at: datetime = Field(default_factory=now)
    """When it became true (UTC)."""


class StoredAlert(Alert):
    """An alert with what became of it."""

    delivered: tuple[str, ...] = ()
    """Destinations that have it."""
    failing: Mapping[str, str] = {}
    """Destination -> last error, for those that don't have it yet."""


def enqueue(connection: Connection, alert: Alert) -> bool:
    """Write `alert` in the caller's transaction. False when one with its dedupe key stands already."""
    values = alert.model_dump(mode="json", exclude={"created_at"}) | {"created_at": alert.created_at}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(outbox).values(**values).on_conflict_do_nothing(index_elements=["dedupe_key"])
    return connection.execute(statement).rowcount == 1


def list_alerts(database: Engine, *, tenant: str | None = None, limit: int = 20) -> list[StoredAlert]:
    """List the newest alerts first, of one tenant or of all, with what became of them."""
    query = select(outbox).order_by(outbox.c.created_at.desc(), outbox.c.alert_id).limit(limit)
    if tenant is not None:
        query = query.where(or_(outbox.c.tenant == tenant, outbox.c.tenant.is_(None)))
    with database.connect() as connection:
        rows = connection.execute(query).mappings().all()
        states = connection.execute(
            select(deliveries).where(deliveries.c.alert_id.in_([row["alert_id"] for row in rows]))
        ).mappings()
        delivered: dict[str, list[str]] = {}
        failing: dict[str, dict[str, str]] = {}
        for state in states:
            if state["delivered_at"] is not None:
                delivered.setdefault(state["alert_id"], []).append(state["destination"])
            else:
                failing.setdefault(state["alert_id"], {})[state["destination"]] = state["last_error"] or ""
    return [
        StoredAlert(
            **row,
            delivered=tuple(sorted(delivered.get(row["alert_id"], ()))),
            failing=failing.get(row["alert_id"], {}),
        )
        for row in rows
    ]


def due(database: Engine, destination: str, config: AlertsConfig, limit: int) -> list[tuple[Alert, int]]:
    """List the alerts that one destination should have by now, oldest first, each with the number of failed tries."""
    at = now()
    state = and_(deliveries.c.alert_id == outbox.c.alert_id, deliveries.c.destination == destination)
    query = (
        select(outbox, deliveries.c.attempts)
        .select_from(outbox.outerjoin(deliveries, state))
        .where(
            outbox.c.created_at >= at - timedelta(hours=config.give_up_hours),
            deliveries.c.delivered_at.is_(None),
            or_(deliveries.c.next_try.is_(None), deliveries.c.next_try <= at),
        )
        .order_by(outbox.c.created_at, outbox.c.alert_id)
        .limit(limit)
    )
    with database.connect() as connection:
        return [_alert(row) for row in connection.execute(query).mappings()]


def _alert(row: RowMapping) -> tuple[Alert, int]:
    values = dict(row)
    attempts = values.pop("attempts") or 0
    return Alert(**values), attempts


def note_delivery(
    database: Engine, alert_id: str, destination: str, attempts: int, error: str | None, config: AlertsConfig
) -> None:
    """Note that a destination took an alert (`error` None), or when to try again."""
    wait = min(config.retry_seconds * 2.0 ** min(attempts - 1, 30), config.retry_max_seconds)
    values = {
        "attempts": attempts,
        "delivered_at": now() if error is None else None,
        "next_try": None if error is None else now() + timedelta(seconds=wait),
        "last_error": error,
    }
    where = and_(deliveries.c.alert_id == alert_id, deliveries.c.destination == destination)
    with begin_write(database) as connection:
        if connection.execute(update(deliveries).where(where).values(**values)).rowcount == 0:
            connection.execute(insert(deliveries).values(alert_id=alert_id, destination=destination, **values))
