"""The ways back: taking a version back, barring it, lifting the bar, pausing and resuming the nights' releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from deploy.engines.client import EngineRefusal
from deploy.ledger.ledger import Action, Entry, RefusedTransition, Standing
from deploy.ledger.writes import line_alert, retry, write
from infra.database.connect import now
from infra.errors import RatchetError, Unavailable

# Loads the named version in every engine that will serve it and proves that it is the one that answers; returns what
# was measured, raises RatchetError when it cannot be proved (deploy/versions/parity.py makes one).
Prove = Callable[[str], Mapping[str, Any]]
# Refusals with which an engine judges what it was given; all others (busy, away, a wrong key) say nothing of a version.
_OF_THE_VERSION = (400, 409, 413, 422, 500)


def roll_back(
    engine: Engine,
    tenant: str,
    *,
    actor: str,
    reason: str,
    to: str | None = None,
    evidence: Mapping[str, Any] | None = None,
    pause_seconds: float | None = None,
    prove: Prove | None = None,
    decided_on: Standing | None = None,
) -> Entry:
    """Take back what is under watch, else the champion, in one line: another is live, the bad one is barred.

    Args:
        to: where to go; default: the champion for a canary, else the last champion that is not barred and can be
            proved in the engine, and at last the base model. Naming the champion's predecessor takes back the champion
            even while a canary is open.
        pause_seconds: how long nights release nothing afterwards; None: until a person resumes.
        prove: proves the target before traffic goes there; a target that fails yields to the one before it. An engine
            that is down or busy fails no target: the way back stays open, and the line says what was not proved.
        decided_on: refuse with Conflict if the ledger moved since; default: decide anew until it is written.

    Raises:
        RefusedTransition: nothing can be taken back, or `to` is barred or was never champion.
    """

    def attempt(before: Standing) -> Entry:
        if before.champion is None:
            raise RefusedTransition(f"tenant {tenant!r} has no champion, so there is nothing to take back")
        from_canary = before.canary is not None and to in (None, before.champion)
        bad = before.canary if from_canary and before.canary else before.champion
        if bad == before.base:
            raise RefusedTransition(f"the base model {bad} is live for tenant {tenant!r}: there is nothing behind it")
        refused: dict[str, str] = {}
        unproved: dict[str, str] = {}
        target = before.champion if from_canary else _proved_target(before, to, prove, refused, unproved)
        ends = {} if pause_seconds is None else {"paused_until": (now() + timedelta(seconds=pause_seconds)).isoformat()}
        line = Entry(
            tenant=tenant,
            action="rolled_back",
            version=bad,
            previous=target,
            actor=actor,
            reason=reason,
            evidence={
                **(evidence or {}),
                **ends,
                **({"targets_refused": refused} if refused else {}),
                **({"target_not_proved": unproved} if unproved else {}),
            },
        )
        alert = line_alert(
            line,
            "rolled_back",
            "critical",
            f"{bad} was taken back; {target} is live",
            text=f"{reason}. {bad} is barred, and nights release nothing "
            + ("until a person resumes." if pause_seconds is None else f"for {pause_seconds:g} s.")
            + "".join(f" {name}: {why}." for name, why in unproved.items()),
            next_step=f"`ratchet status`; after you know why: `ratchet resume`, or `ratchet unbar {bad}`",
        )
        return write(engine, [line], before.seq, alert)

    return attempt(decided_on) if decided_on is not None else retry(engine, tenant, attempt)


def bar(engine: Engine, tenant: str, version: str, *, actor: str, reason: str) -> Entry:
    """Bar a version that is not live from ever being released, until a person lifts it."""
    return _by_person(engine, tenant, "barred", version, actor, reason, f"{version} is barred")


def lift_bar(engine: Engine, tenant: str, version: str, *, actor: str, reason: str) -> Entry:
    """Allow a barred version to be released again."""
    return _by_person(engine, tenant, "unbarred", version, actor, reason, f"{version} may be released again")


def pause(engine: Engine, tenant: str, *, actor: str, reason: str, until: datetime | None = None) -> Entry:
    """Stop nights from releasing, until `until` or until a person resumes."""
    more = {"paused_until": until.isoformat()} if until else {}
    return _by_person(engine, tenant, "paused", None, actor, reason, "promotions are paused", more)


def resume(engine: Engine, tenant: str, *, actor: str, reason: str) -> Entry:
    """Let nights release again."""
    return _by_person(engine, tenant, "resumed", None, actor, reason, "promotions go on")


def _by_person(
    engine: Engine,
    tenant: str,
    action: Action,
    version: str | None,
    actor: str,
    reason: str,
    title: str,
    evidence: Mapping[str, Any] | None = None,
) -> Entry:
    def attempt(before: Standing) -> Entry:
        line = Entry(
            tenant=tenant,
            action=action,
            version=version or before.champion or "none",
            actor=actor,
            reason=reason,
            evidence=evidence or {},
        )
        return write(engine, [line], before.seq, line_alert(line, action, "info", f"{title} (by {actor})", text=reason))

    return retry(engine, tenant, attempt)


def _proved_target(
    before: Standing, to: str | None, prove: Prove | None, refused: dict[str, str], unproved: dict[str, str]
) -> str:
    """Where to go; notes in `refused` which targets failed, and in `unproved` why the one returned was not proved."""
    if to is not None:
        if prove is not None and to != before.base:
            _prove(to, prove, unproved)  # a person named it: its failure is theirs to see
        return to
    behind = before
    while True:
        target = behind.fallback(before.champion)
        if target == before.base or prove is None:
            return target
        try:
            _prove(target, prove, unproved)
            return target
        except Exception as error:  # whatever is wrong with it (a broken probe.json, too): the way back goes on
            refused[target] = str(error) if isinstance(error, RatchetError) else repr(error)
            behind = behind.model_copy(update={"barred": {**behind.barred, target: str(error)}})


def _prove(target: str, prove: Prove, unproved: dict[str, str]) -> None:
    """Prove a target; where the engine cannot be asked now it is taken as it is, for it was live before."""
    try:
        prove(target)
    except Unavailable as error:
        unproved[target] = f"not proved: engine away ({error})"
    except EngineRefusal as refusal:
        if refusal.status in _OF_THE_VERSION:
            raise
        unproved[target] = f"not proved: engine busy or not to be asked ({refusal})"
