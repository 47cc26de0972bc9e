"""MLflow's webhook: an alias that was moved by hand is looked at now, and not only with the next poll.

MLflow signs each delivery as `v1,<base64 of HMAC-SHA256 of "delivery id.timestamp.body">`. A verified delivery says
"look", and nothing more: what it tells is not believed, the controller asks MLflow itself. Deliveries can be lost
(MLflow tries a few times, in memory), so the poll goes on beside them; our own moves come back as deliveries too and
cost one look that finds everything in step.

Gateways take the deliveries and count them in SQL; controllers watch the count.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import threading
import time
from collections.abc import Mapping

from sqlalchemy import Column, Engine, Integer, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from infra.database.connect import begin_write, metadata
from infra.errors import RatchetError, Unavailable

log = logging.getLogger(__name__)

HOOK_SECRET = "RATCHET_MLFLOW_WEBHOOK_SECRET"  # noqa: S105  the name of a variable, not its value
PATH = "/v1/hooks/mlflow"
EVENTS = ("model_version_alias.created", "model_version_alias.deleted")
"""What wakes the controller; moving an alias is a `created`."""
RENEW_SECONDS = 600.0
"""It is set anew so often."""
OLD_SECONDS = 300
"""A delivery older than this is not believed: somebody may have kept it."""

knocks = Table(
    "registry_knocks",
    metadata,
    Column("name", String(60), primary_key=True),
    Column("count", Integer, nullable=False),
)
_MLFLOW = "mlflow"


class HookRefused(RatchetError):
    """A delivery that is not MLflow's."""


def verify(headers: Mapping[str, str], body: bytes, secret: str, *, at: float | None = None) -> None:
    """Make sure that a delivery was signed with our secret, and lately.

    Args:
        headers: by lower-case name.
        at: seconds since 1970 by this machine's clock. Default: now.

    Raises:
        HookRefused: it was not.
    """
    delivery, stamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    signed = f"{delivery}.{stamp}.".encode() + body
    right = b"v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    if not hmac.compare_digest(right, headers.get("x-mlflow-signature", "").encode()):
        raise HookRefused("the delivery is not signed with our secret; give MLflow's webhook the one of the gateway")
    if (
        not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12)
        or abs((time.time() if at is None else at) - int(stamp)) > OLD_SECONDS
    ):
        raise HookRefused(f"the delivery is from {stamp or 'no time'}, more than {OLD_SECONDS} s from now")


def knock(engine: Engine) -> None:
    """Ask whoever keeps MLflow in step to look now."""
    more = update(knocks).where(knocks.c.name == _MLFLOW).values(count=knocks.c.count + 1)
    with begin_write(engine) as connection:
        if connection.execute(more).rowcount:
            return
    try:
        with begin_write(engine) as connection:
            connection.execute(insert(knocks).values(name=_MLFLOW, count=1))
    except IntegrityError:  # another gateway made the first row
        with begin_write(engine) as connection:
            connection.execute(more)


class Door:
    """Waits for the next look: until somebody knocks, or the poll is due."""

    def __init__(self, engine: Engine, *, look_every: float) -> None:
        self._engine, self._look_every = engine, look_every
        self._seen = self._count()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Return when `stop` is set, `seconds` are over or a knock came that no wait has returned for; True then."""
        end = time.monotonic() + seconds
        while True:
            count = self._count()
            if count != self._seen:
                self._seen = count
                return True
            left = end - time.monotonic()
            if left <= 0 or stop.wait(min(left, self._look_every)):
                return False

    def _count(self) -> int:
        try:
            with self._engine.connect() as connection:
                return connection.scalar(select(knocks.c.count).where(knocks.c.name == _MLFLOW)) or 0
        except SQLAlchemyError as error:
            log.warning("whether MLflow knocked is not known: %s", str(error).splitlines()[0])
            return getattr(self, "_seen", 0)


class Webhook:
    """The webhook at MLflow, kept as it should be: MLflow may be down when we start, or lose its database later."""

    def __init__(self, mlflow_url: str, model: str, hook_url: str | None) -> None:
        self._mlflow_url, self._model, self._hook_url = mlflow_url, model, hook_url
        self._set_at = -RENEW_SECONDS

    def keep(self) -> str:
        """Make or renew it when that is due; says how it stands."""
        secret = os.environ.get(HOOK_SECRET)
        if self._hook_url is None or not secret:
            return "none"
        if time.monotonic() >= self._set_at + RENEW_SECONDS:
            from deploy.registry.aliases import Registry

            try:
                Registry(self._mlflow_url, self._model).subscribe(
                    f"ratchet-{self._model}", self._hook_url, secret, EVENTS
                )
            except Unavailable as error:
                return str(error)
            self._set_at = time.monotonic()
        return self._hook_url
