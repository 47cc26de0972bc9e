"""Configure where alerts go; apart from the outbox, so that reading a config needs no database driver."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from infra.settings import Config


class Webhook(Config):
    """An HTTP receiver of signed alerts."""

    url: str = Field(pattern=r"^https?://")
    """Where to POST the alert as JSON."""
    secret_env: str = "RATCHET_WEBHOOK_SECRET"  # noqa: S105  the name of a variable, not its value
    """Environment variable with the secret that signs requests."""


class AlertsConfig(Config):
    """Where alerts go, and how stubbornly."""

    webhooks: Mapping[str, Webhook] = {}
    """Name -> HTTP receiver of signed JSON."""
    apprise: Mapping[str, str] = {}
    """Name -> environment variable with an apprise URL (Slack, e-mail, PagerDuty...; they hold secrets, so by env)."""
    console_url: str | None = Field(default=None, pattern=r"^https?://")
    """Address of the console as the alerts' readers reach it, put into every alert. Default: the local gateway's."""
    timeout_seconds: float = Field(default=5.0, gt=0)
    """How long a receiver may take to answer."""
    retry_seconds: float = Field(default=2.0, gt=0)
    """Wait before the first repetition; it doubles with every failure."""
    retry_max_seconds: float = Field(default=900.0, gt=0)
    """Longest wait between two tries."""
    give_up_hours: float = Field(default=72.0, gt=0)
    """Alerts older than this are no longer tried; they stay in `ratchet status`."""
