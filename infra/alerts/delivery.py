"""Deliver alerts to their receivers: signed webhooks, and the services that apprise knows."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine

from infra.alerts.config import AlertsConfig, Webhook
from infra.alerts.outbox import Alert, due, note_delivery
from infra.alerts.signature import sign
from infra.artifact import canonical_json

log = logging.getLogger(__name__)


def deliver(database: Engine, config: AlertsConfig, *, limit: int = 50) -> int:
    """Send what is due to every destination, oldest first; returns how many deliveries succeeded.

    At least once: a crash between the receiver's answer and our note of it sends the alert again, with the same id.
    A failure is noted and tried again later; it never raises.
    """
    return sum(
        deliver_to(database, destination, partial(_send, destination, config), config, limit=limit)
        for destination in destinations(config)
    )


def deliver_to(
    database: Engine,
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
    for alert, attempts in due(database, destination, config, limit):
        error = send(with_links(alert, config))
        note_delivery(database, alert.alert_id, destination, attempts + 1, error, config)
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
    return {to: _send(to, config, with_links(alert, config)) for to in destinations(config)}


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


def _send(destination: str, config: AlertsConfig, alert: Alert) -> str | None:
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
