"""Run a rollback drill on the live stack: a release and its rollback for a tenant that has no users.

The drill's tenant has its own ledger, key and routing on the same gateways, engines, database and alert outbox as
everybody else, so what it proves holds for them; no user's request is ever routed by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, select

from deploy.api_keys import create_key, revoke_key
from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Override, Prove
from deploy.ledger.lease import canary_lease, release, renew
from deploy.ledger.ledger import Entry, current
from deploy.ledger.state import DRILL_TENANT as TENANT
from deploy.release.lifecycle import promote, start, withdraw
from deploy.release.manual_controls import lift_bar, resume
from deploy.release.opening import Releases
from deploy.release.rollback import roll_back
from infra.alerts.outbox import outbox
from infra.errors import RatchetError, Unavailable
from infra.settings import Config

HOLDER = "drill"
PATIENCE_SECONDS = 30.0


class DrillReport(Config):
    """What the drill saw."""

    version: str
    """The version that was released and taken back."""
    base: str
    """Where it went back to."""
    canary_seconds: float
    """From the ledger line that opened the canary to the first answer by the version."""
    champion_seconds: float
    """From the line that made it champion until new users get it."""
    back_seconds: float
    """From the rollback's line to the first answer after it."""
    requests: int
    """Requests sent all the while."""
    failed: int
    """Of those, the ones without an answer."""
    late: int
    """Answers by the version that began more than a second after the rollback's line."""
    barred: bool
    """Whether the version was barred by the same line."""
    alerted: bool
    """Whether the alert stood in the outbox with that line."""

    @property
    def passed(self) -> bool:
        """Whether a real rollback may be relied on."""
        return self.failed == 0 and self.late == 0 and self.barred and self.alerted and self.back_seconds <= 1.0


class _Load:
    """One request after another, each by a new user, until stopped."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self.answers: list[tuple[float, str]] = []
        """(when it was sent, who answered)."""
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60.0)

    def wait_for(self, version: str, since: float) -> float:
        """Wait for and return the seconds from `since` until an answer by `version` that was sent after it had come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for sent, answered_by in reversed(self.answers):
                if sent < since:
                    break
                if answered_by == version:
                    return time.monotonic() - since
            if len(self.failures) > 20:
                break
            time.sleep(0.01)
        said = f"; the last error: {self.failures[-1]}" if self.failures else ""
        raise Unavailable(f"no answer by {version} within {PATIENCE_SECONDS:g} s of its ledger line{said}")

    def _run(self) -> None:
        number = 0
        with httpx.Client(headers={"Authorization": f"Bearer {self._key}"}, timeout=60.0, trust_env=False) as http:
            while not self._stop.is_set():
                number += 1
                body: dict[str, Any] = {"model": "champion", "max_tokens": 1, "user": f"drill {time.time()} {number}"}
                body["messages"] = [{"role": "user", "content": "This is a drill."}]
                sent = time.monotonic()
                try:
                    answer = http.post(f"{self._url}/v1/chat/completions", json=body)
                    answer.raise_for_status()
                    self.answers.append((sent, answer.headers["x-ratchet-version"]))
                except (httpx.HTTPError, KeyError) as error:
                    self.failures.append(repr(error))
                    time.sleep(0.05)


def drill(
    database: Engine,
    *,
    gateway_url: str,
    base_version: str,
    version: str,
    versions_dir: Path,
    prove: Prove,
    on_progress: Callable[[str], None] = lambda text: None,
) -> DrillReport:
    """Release `version` to the drill's tenant, take it back, and measure.

    Raises:
        RatchetError: engine, gateway or database did not do their part; what it says is what a rollback would meet.
    """
    start(database, TENANT, base_version, actor="drill")
    _tidy(database, version)
    secret, key = create_key(database, tenant=TENANT, name="rollback drill", scopes=["chat"])
    policy = CanaryPolicy(steps=(0.5,), holdback=0.0, minimum_seconds=0.0)
    releases = Releases(database, TENANT, versions_dir=versions_dir, policy=policy, prove=prove)
    try:
        with _Load(gateway_url, secret) as load:
            load.wait_for(base_version, time.monotonic())
            on_progress(f"{base_version} answers; releasing {version}")
            renew(database, canary_lease(TENANT), HOLDER, 600.0)
            reason = Override(actor="drill", reason="a rollback drill; no user is served by this")
            releases.open(version, actor="drill", override=reason)
            canary = load.wait_for(version, time.monotonic())
            promote(database, current(database, TENANT), policy=policy, reason="a drill", actor="drill")
            champion = load.wait_for(version, time.monotonic())
            on_progress(f"{version} is champion of the drill's tenant; taking it back")
            entry = roll_back(
                database, TENANT, actor="drill", reason="a rollback drill", prove=prove, pause_seconds=0.0
            )
            at = time.monotonic()
            back = load.wait_for(base_version, at)
            time.sleep(2.0)
        late = sum(answered_by == version for sent, answered_by in load.answers if sent > at + 1.0)
        return DrillReport(
            version=version,
            base=base_version,
            canary_seconds=round(canary, 3),
            champion_seconds=round(champion, 3),
            back_seconds=round(back, 3),
            requests=len(load.answers) + len(load.failures),
            failed=len(load.failures),
            late=late,
            barred=version in current(database, TENANT).barred,
            alerted=_alerted(database, entry),
        )
    finally:
        revoke_key(database, key.key_id)
        release(database, canary_lease(TENANT), HOLDER)
        _tidy(database, version)


def _tidy(database: Engine, version: str) -> None:
    """Bring the drill's tenant back to its base, whatever an earlier drill left when it was killed."""
    state = current(database, TENANT)
    if state.canary or state.gated:
        withdraw(database, state, actor="drill", reason="left by a drill that was interrupted")
        state = current(database, TENANT)
    while state.champion != state.base:
        roll_back(database, TENANT, actor="drill", reason="left by a drill that was interrupted", pause_seconds=0.0)
        state = current(database, TENANT)
    for name in state.barred:
        lift_bar(database, TENANT, name, actor="drill", reason="barred by a drill only")
    if current(database, TENANT).paused:
        try:
            resume(database, TENANT, actor="drill", reason="paused by a drill only")
        except RatchetError:
            return  # another drill did


def _alerted(database: Engine, entry: Entry) -> bool:
    query = select(outbox.c.payload).where(outbox.c.tenant == entry.tenant, outbox.c.kind == "rolled_back")
    with database.connect() as connection:
        return any(row.payload.get("seq") == entry.seq for row in connection.execute(query))
