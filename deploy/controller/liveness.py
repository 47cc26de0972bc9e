"""Tell whether a controller is alive, by its heartbeats, and do for it what must not wait."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine

from deploy.controller.heartbeat import last_beats
from infra.alerts.config import AlertsConfig
from infra.alerts.delivery import deliver
from infra.alerts.outbox import Alert
from infra.database.connect import now


def is_alive(database: Engine, *, seconds: float) -> bool:
    """Check whether a controller beat within the last ``seconds``."""
    return any(beat.at > now() - timedelta(seconds=seconds) for beat in last_beats(database).values())


def deliver_if_silent(database: Engine, config: AlertsConfig) -> None:
    """Deliver the alerts that are due, unless a controller beat within half a minute: it delivers all the time."""
    if not is_alive(database, seconds=30):
        deliver(database, config)


def silence_alert(database: Engine, *, seconds: float) -> Alert | None:
    """Make an alert when no controller beat within ``seconds``; one per hour of silence."""
    if is_alive(database, seconds=seconds):
        return None
    last = max((beat.at for beat in last_beats(database).values()), default=None)
    heard = f"last heard of at {last:%Y-%m-%d %H:%M:%S} UTC" if last else "never heard of"
    return Alert(
        kind="controller_silent",
        severity="critical",
        title="nobody watches the canaries",
        text=f"The controller is silent ({heard}). Canaries get no traffic until it is back.",
        next_step="`ratchet status`, then `ratchet up`",
        dedupe_key=f"controller_silent/{now():%Y%m%d%H}",
    )
