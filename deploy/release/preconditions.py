"""Check the preconditions of a release, and whether a winner still waits because its own night could not open it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from deploy.ledger.evidence import Evidence, VerdictSummary
from deploy.ledger.ledger import current, history
from deploy.ledger.state import Entry, RefusedTransition, ReleaseState, TemporarilyBlocked
from deploy.ledger.transitions import apply
from infra.database.connect import now


def check_preconditions(state: ReleaseState, gated: Entry, *, at: datetime, shadow_only: bool = False) -> None:
    """Refuse a release that may not open on what stands.

    Args:
        gated: the line that would gate it, with the verdict or the override that it rests on as evidence.
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.

    Raises:
        TemporarilyBlocked: the cause passes by itself: another watch, a pause, another champion than the one it was
            compared with.
        RefusedTransition: it does not.
    """
    version = gated.version
    apply(state, gated)
    if state.paused_at(at) and not gated.evidence.override:
        until = f"until {state.paused_until:%F %T} UTC" if state.paused_until else "until a person resumes"
        raise TemporarilyBlocked(f"{version}: promotions are paused {until}; `ratchet resume`, or name an override")
    if shadow_only and state.gated == version:
        raise RefusedTransition(
            f"{version} answers in shadow, and more it cannot: serving.upstream_url stays the champion; "
            "`ratchet withdraw` ends the shadow"
        )
    stale = compared_with_another(gated.evidence, state)
    if stale is not None:
        raise TemporarilyBlocked(
            f"{version} {stale}; `ratchet run nightly --force` compares it with that one, or name an override"
        )


def compared_with_another(evidence: Evidence, state: ReleaseState) -> str | None:
    """Say where the verdict that a release rests on was on another champion than the live one; not of overrides."""
    champion = evidence.gate.champion if evidence.gate else None
    if evidence.override or champion in (None, state.champion):
        return None
    return f"was compared with {champion}, but {state.champion} is champion by now"


def still_waits(entries: Sequence[Entry], version: str, *, held: bool) -> bool:
    """Decide whether the last word on a winner is that it may not open now.

    What was withdrawn, taken back, barred or refused by the engine since waits no longer.

    Args:
        held: whether its night ended, and so wrote a line; one that failed may have left none.
    """
    about = [entry for entry in entries if entry.version == version]
    if not about:
        return not held
    return about[-1].action == "held" and bool(about[-1].evidence.waits)


@dataclass(frozen=True)
class DeferredRelease:
    """A winner that its own night did not release, and that still waits."""

    cause: str | None
    """Why it still may not be released; None: it may by now."""


def deferred_release(
    database: Engine,
    tenant: str,
    version: str,
    gate: VerdictSummary,
    *,
    since: datetime,
    held: bool,
    shadow_only: bool,
) -> DeferredRelease | None:
    """Decide whether an earlier night's winner may be released by now; None where it waits no longer.

    Args:
        gate: the verdict that it won.
        since: when that night began: what the ledger says of the same weights from before says nothing of its verdict.
        held: whether that night ended, and so wrote an entry.
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.
    """
    entries = [entry for entry in history(database, tenant) if entry.at >= since]
    if not still_waits(entries, version, held=held):
        return None
    gated = Entry(
        tenant=tenant,
        action="gated",
        version=version,
        actor="night",
        reason="it waited",
        evidence=Evidence(gate=gate),
    )
    try:
        check_preconditions(current(database, tenant), gated, at=now(), shadow_only=shadow_only)
    except TemporarilyBlocked as cause:
        return DeferredRelease(str(cause))
    except RefusedTransition:
        return None
    return DeferredRelease(None)
