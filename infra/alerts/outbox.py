"""Alerts: written to an outbox in the transaction that made them true, delivered at least once by our own sender.

    with begin_write(engine) as connection:
        ...                                       # what happened
        enqueue(connection, Alert(kind="promoted", title="v1 is live", ...))
    deliver(engine, config.alerts)                # the controller does this every second

A webhook request carries `X-Ratchet-Delivery` (the alert's id: the receiver drops what it has seen),
`X-Ratchet-Timestamp` (seconds) and `X-Ratchet-Signature: v1,<base64 of HMAC-SHA256 of "id.timestamp.body">`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field
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

from infra.alerts.config import AlertsConfig, Webhook
from infra.artifact import canonical_json
from infra.database.connect import UtcDateTime, begin_write, metadata, now
from infra.settings import Config

__all__ = [
    "Alert",
    "AlertsConfig",
    "Severity",
    "StoredAlert",
    "Webhook",
    "deliver",
    "deliver_to",
    "deliveries",
    "enqueue",
    "list_alerts",
    "outbox",
    "send_now",
    "sign",
    "signature_holds",
]

log = logging.getLogger(__name__)

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
    payload: Mapping[str, Any] = {}
    """Facts for machines, as JSON."""
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


def list_alerts(engine: Engine, *, tenant: str | None = None, limit: int = 20) -> list[StoredAlert]:
    """The newest alerts first, of one tenant or of all, with what became of them."""
    query = select(outbox).order_by(outbox.c.created_at.desc(), outbox.c.alert_id).limit(limit)
    if tenant is not None:
        query = query.where(or_(outbox.c.tenant == tenant, outbox.c.tenant.is_(None)))
    with engine.connect() as connection:
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


def deliver(engine: Engine, config: AlertsConfig, *, limit: int = 50) -> int:
    """Send what is due to every destination, oldest first; returns how many deliveries succeeded.

    At least once: a crash between the receiver's answer and our note of it sends the alert again, with the same id.
    A failure is noted and tried again later; it never raises.
    """
    return sum(
        deliver_to(engine, destination, lambda alert, to=destination: _send(to, alert, config), config, limit=limit)  # type: ignore[misc]
        for destination in destinations(config)
    )


def deliver_to(
    engine: Engine,
    destination: str,
    send: Callable[[Alert], str | None],
    config: AlertsConfig,
    *,
    limit: int = 50,
) -> int:
    """Send what is due to one destination, oldest first; returns how many it took.

    Args:
        send: None when the receiver took it, else what went wrong (without any secret).
    """
    sent = 0
    for alert, attempts in _due(engine, destination, config, limit):
        error = send(with_links(alert, config))
        _note(engine, alert.alert_id, destination, attempts + 1, error, config)
        if error is None:
            sent += 1
        else:
            log.warning("alert %s (%s) did not reach %s: %s", alert.alert_id, alert.kind, destination, error)
    return sent


def destinations(config: AlertsConfig) -> tuple[str, ...]:
    """Names of all receivers of the config, as the outbox knows them."""
    return (*(f"webhook:{name}" for name in config.webhooks), *(f"apprise:{name}" for name in config.apprise))


def send_now(alert: Alert, config: AlertsConfig) -> dict[str, str | None]:
    """Send an alert past the outbox; destination -> None when it was taken, else what went wrong."""
    return {to: _send(to, with_links(alert, config), config) for to in destinations(config)}


def with_links(alert: Alert, config: AlertsConfig) -> Alert:
    """The alert with the console's page about it, where the config says how readers reach the console."""
    if config.console_url is None or "console" in alert.links:
        return alert
    page = _PAGES.get(alert.kind, "live")
    return alert.model_copy(update={"links": {**alert.links, "console": f"{config.console_url.rstrip('/')}#{page}"}})


# Kind of alert -> page of the console that answers it; the others begin at the live one.
_PAGES = {
    "held": "nights",
    "run_failed": "nights",
    "approval_needed": "nights",
    "drift": "nights",
    "quarantine_spike": "quarantine",
    "ingest_stale": "quarantine",
    "release_opened": "canary",
    "canary_step": "canary",
    "canary_unwatched": "canary",
    "ledger_unread": "ledger",
    "deadline": "canary",
    "rated_unequally": "canary",
    "incident": "canary",
    "rolled_back": "ledger",
    "withdrawn": "ledger",
    "alias_put_back": "ledger",
}


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The value of X-Ratchet-Signature (the scheme of Standard Webhooks: HMAC-SHA256 of "id.timestamp.body")."""
    message = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def signature_holds(secret: str, headers: Mapping[str, str], body: bytes, *, tolerance_seconds: float = 300) -> bool:
    """For receivers: whether the request comes from who holds the secret, and is not an old one played again.

    `headers` must have lower-case names. Whatever they hold, the answer is yes or no: it is asked before anything is
    known of the sender.
    """
    delivery, timestamp = headers.get("x-ratchet-delivery", ""), headers.get("x-ratchet-timestamp", "")
    try:
        expected = sign(secret, delivery, timestamp, body).encode()
        found = headers.get("x-ratchet-signature", "").encode()
    except UnicodeEncodeError:  # a lone surrogate: nothing of ours
        return False
    if not hmac.compare_digest(expected, found):
        return False
    # Signed by who holds the secret, so it is ours, or that of somebody who may do the same.
    plain = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _STAMP_DIGITS
    return plain and abs(time.time() - int(timestamp)) <= tolerance_seconds


_STAMP_DIGITS = 12
"""Seconds since 1970 fit in for thirty thousand years."""


def _due(engine: Engine, destination: str, config: AlertsConfig, limit: int) -> list[tuple[Alert, int]]:
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
    with engine.connect() as connection:
        return [_alert(row) for row in connection.execute(query).mappings()]


def _alert(row: RowMapping) -> tuple[Alert, int]:
    values = dict(row)
    attempts = values.pop("attempts") or 0
    return Alert(**values), attempts


def _note(
    engine: Engine, alert_id: str, destination: str, attempts: int, error: str | None, config: AlertsConfig
) -> None:
    wait = min(config.retry_seconds * 2.0 ** min(attempts - 1, 30), config.retry_max_seconds)
    values = {
        "attempts": attempts,
        "delivered_at": now() if error is None else None,
        "next_try": None if error is None else now() + timedelta(seconds=wait),
        "last_error": error,
    }
    where = and_(deliveries.c.alert_id == alert_id, deliveries.c.destination == destination)
    with begin_write(engine) as connection:
        if connection.execute(update(deliveries).where(where).values(**values)).rowcount == 0:
            connection.execute(insert(deliveries).values(alert_id=alert_id, destination=destination, **values))


def _send(destination: str, alert: Alert, config: AlertsConfig) -> str | None:
    """None when the receiver took it, else what went wrong (without any secret)."""
    kind, _, name = destination.partition(":")
    if kind == "webhook":
        return _post(alert, config.webhooks[name], config.timeout_seconds)
    return _notify(alert, config.apprise[name])


def _post(alert: Alert, webhook: Webhook, timeout: float) -> str | None:
    import httpx

    secret = os.environ.get(webhook.secret_env)
    if not secret:
        return f"environment variable {webhook.secret_env} is not set: nothing is sent unsigned; export it"
    body = canonical_json(alert.model_dump(mode="json", exclude={"dedupe_key"})).encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "X-Ratchet-Delivery": alert.alert_id,
        "X-Ratchet-Timestamp": timestamp,
        "X-Ratchet-Signature": sign(secret, alert.alert_id, timestamp, body),
    }
    try:
        answer = httpx.post(webhook.url, content=body, headers=headers, timeout=timeout)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}"
    return None if answer.is_success else f"HTTP {answer.status_code}"


def _notify(alert: Alert, variable: str) -> str | None:
    import apprise

    url = os.environ.get(variable)
    if not url:
        return f"environment variable {variable} is not set; export the apprise URL"
    sender = apprise.Apprise()
    if not sender.add(url):
        return f"environment variable {variable} holds no URL that apprise knows"
    lines = [alert.text, f"Next: {alert.next_step}" if alert.next_step else ""]
    lines += [f"{label}: {link}" for label, link in alert.links.items()]
    level = {"info": "info", "warning": "warning", "critical": "failure"}[alert.severity]
    taken = sender.notify(
        title=f"[{alert.tenant or 'ratchet'}] {alert.title}",
        body="\n".join(line for line in lines if line) or alert.title,
        # Said, so that whoever shows it as HTML escapes it first.
        body_format="text",
        notify_type=level,
    )
    return None if taken else "the service did not take it"
