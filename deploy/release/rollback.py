"""Roll back: take a version back to one that is not barred and proved, in one entry that bars the bad one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import Engine

from deploy.engines.client import EngineRefusal
from deploy.ledger.evidence import Evidence, Prove
from deploy.ledger.ledger import Entry, RefusedTransition, ReleaseState
from deploy.ledger.writes import entry_alert, retry, write
from infra.database.connect import now
from infra.errors import RatchetError, Unavailable

# Refusals with which an engine judges what it was given; all others (busy, away, a wrong key) say nothing of a version.
_OF_THE_VERSION = (400, 409, 413, 422, 500)


def roll_back(
    database: Engine,
    tenant: str,
    *,
    actor: str,
    reason: str,
    to: str | None = None,
    evidence: Evidence | None = None,
    pause_seconds: float | None = None,
    prove: Prove | None = None,
) -> Entry:
    """Take back what is under watch, else the champion; decided anew until it is written.

    Arguments and errors are those of `roll_back_from`, which decides once.
    """
    return retry(
        database,
        tenant,
        lambda state: roll_back_from(
            database,
            state,
            actor=actor,
            reason=reason,
            to=to,
            evidence=evidence,
            pause_seconds=pause_seconds,
            prove=prove,
        ),
    )


def roll_back_from(
    database: Engine,
    state: ReleaseState,
    *,
    actor: str,
    reason: str,
    to: str | None = None,
    evidence: Evidence | None = None,
    pause_seconds: float | None = None,
    prove: Prove | None = None,
) -> Entry:
    """Take back what is under watch, else the champion, in one entry: another is live, the bad one is barred.

    Args:
        state: what it is decided on.
        to: where to go; default: the champion for a canary, else the last champion that is not barred and can be
            proved in the engine, and at last the base model. Naming the champion's predecessor takes back the champion
            even while a canary is open.
        pause_seconds: how long nights release nothing afterwards; None: until a person resumes.
        prove: proves the target before traffic goes there; a target that fails yields to the one before it. An engine
            that is down or busy fails no target: the way back stays open, and the entry says what was not proved.

    Raises:
        RefusedTransition: nothing can be taken back, or `to` is barred or was never champion.
        Conflict: the ledger moved since `state`.
    """
    if state.champion is None:
        raise RefusedTransition(f"tenant {state.tenant!r} has no champion, so there is nothing to take back")
    from_canary = state.canary is not None and to in (None, state.champion)
    bad = state.canary if from_canary and state.canary else state.champion
    if bad == state.base:
        raise RefusedTransition(f"the base model {bad} is live for tenant {state.tenant!r}: there is nothing behind it")
    target = _Target(state.champion) if from_canary else _proved_target(state, to, prove)
    grounds = target.note(evidence or Evidence())
    if pause_seconds is not None:
        grounds = grounds.model_copy(update={"paused_until": now() + timedelta(seconds=pause_seconds)})
    entry = Entry(
        tenant=state.tenant,
        action="rolled_back",
        version=bad,
        previous=target.version,
        actor=actor,
        reason=reason,
        evidence=grounds,
    )
    alert = entry_alert(
        entry,
        "rolled_back",
        "critical",
        f"{bad} was taken back; {target.version} is live",
        text=f"{reason}. {bad} is barred, and nights release nothing "
        + ("until a person resumes." if pause_seconds is None else f"for {pause_seconds:g} s.")
        + "".join(f" {name}: {why}." for name, why in target.unproved.items()),
        next_step=f"`ratchet status`; after you know why: `ratchet resume`, or `ratchet unbar {bad}`",
    )
    return write(database, [entry], state.seq, alert)


@dataclass
class _Target:
    """Where a rollback goes."""

    version: str
    refused: dict[str, str] = field(default_factory=dict)
    """Version that was tried before it -> why it failed."""
    unproved: dict[str, str] = field(default_factory=dict)
    """This version -> why it was not proved."""

    def note(self, evidence: Evidence) -> Evidence:
        """Add which targets failed, and why the one that was chosen was not proved."""
        if self.refused:
            evidence = evidence.model_copy(update={"targets_refused": self.refused})
        if self.unproved:
            evidence = evidence.model_copy(update={"target_not_proved": self.unproved})
        return evidence


def _proved_target(state: ReleaseState, to: str | None, prove: Prove | None) -> _Target:
    if to is not None:
        # A person named it: its failure is theirs to see.
        return _Target(to, unproved=_prove(to, prove) if prove is not None and to != state.base else {})
    refused: dict[str, str] = {}
    behind = state
    while True:
        version = behind.fallback(state.champion)
        if version == state.base or prove is None:
            return _Target(version, refused)
        try:
            return _Target(version, refused, _prove(version, prove))
        except Exception as error:  # whatever is wrong with it (a broken probe.json, too): the way back goes on
            refused[version] = str(error) if isinstance(error, RatchetError) else repr(error)
            behind = behind.model_copy(update={"barred": {**behind.barred, version: str(error)}})


def _prove(version: str, prove: Prove) -> dict[str, str]:
    """Prove a target; where the engine cannot be asked now it is taken as it is, for it was live before."""
    try:
        prove(version)
    except Unavailable as error:
        return {version: f"not proved: engine away ({error})"}
    except EngineRefusal as refusal:
        if refusal.status in _OF_THE_VERSION:
            raise
        return {version: f"not proved: engine busy or not to be asked ({refusal})"}
    return {}
