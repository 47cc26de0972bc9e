"""Send alerts to Prefect as events, so that automations can act on them: stable names and payloads, at least once.

Event `ratchet.<kind>` about the resource `ratchet.tenant.<tenant>` (or `ratchet.pipeline`), with the alert's id as the
event's id: Prefect drops the second of two with one id. The outbox keeps what Prefect does not have yet.
"""

from __future__ import annotations

import uuid
from typing import TypedDict

import httpx
from pydantic import JsonValue

from infra.alerts.config import AlertsConfig
from infra.alerts.delivery import deliver_to
from infra.alerts.outbox import Alert
from infra.database.open import open_database
from infra.settings import Places
from infra.sign_in import prefect_headers

DESTINATION = "prefect:events"
EVENT_PREFIX = "ratchet."


def mirror_alerts(places: Places, config: AlertsConfig) -> int:
    """Send every alert that Prefect does not have as an event yet; how many it took."""

    def send(alert: Alert) -> str | None:
        try:
            answer = httpx.post(
                f"{places.prefect_api}/events",
                json=[event_of(alert)],
                headers=prefect_headers(),
                timeout=config.timeout_seconds,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return None if answer.is_success else f"HTTP {answer.status_code}: {answer.text[:200]}"

    return deliver_to(open_database(places), DESTINATION, send, config)


class EventPayload(TypedDict):
    """What an automation can read of an alert."""

    alert_id: str
    kind: str
    severity: str
    tenant: str | None
    title: str
    text: str
    next_step: str
    links: dict[str, str]
    facts: dict[str, JsonValue]


class PrefectEvent(TypedDict):
    """An event as Prefect's API takes it."""

    id: str
    occurred: str
    event: str
    resource: dict[str, str]
    payload: EventPayload


def event_of(alert: Alert) -> PrefectEvent:
    """Convert an alert to the event that stands for it."""
    about = f"tenant.{alert.tenant}" if alert.tenant else "pipeline"
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, alert.alert_id)),
        "occurred": alert.created_at.isoformat(),
        "event": EVENT_PREFIX + alert.kind,
        "resource": {
            "prefect.resource.id": f"{EVENT_PREFIX}{about}",
            "prefect.resource.name": alert.tenant or "all tenants",
            "ratchet.severity": alert.severity,
        },
        "payload": {
            "alert_id": alert.alert_id,
            "kind": alert.kind,
            "severity": alert.severity,
            "tenant": alert.tenant,
            "title": alert.title,
            "text": alert.text,
            "next_step": alert.next_step,
            "links": dict(alert.links),
            "facts": dict(alert.payload),
        },
    }
