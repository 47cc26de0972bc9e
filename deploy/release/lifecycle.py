"""Every move of a release: a transaction with its ledger lines and the alert that tells people.

What stands is read first, the move is decided on it, and the line is written only if it still stands. Versions are
loaded and proved in the engines before the line that names them, never after.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.ledger import Action, Entry, RefusedTransition, Standing, current, history
from deploy.ledger.state import NotNow
from deploy.ledger.writes import line_alert, retry, write
from deploy.release.preconditions import WAITS, may_open
from deploy.release.rollback import Prove, bar, lift_bar, pause, resume, roll_back
from deploy.release.shared_champion import inherit
from deploy.versions.versions import load_version
from evaluation.gate.likeness import Likeness, most_like
from infra.alerts.outbox import Alert, Severity, enqueue
from infra.database.connect import begin_write, now
from infra.errors import RatchetError
from infra.settings import Config

__all__ = [
    "Override",
    "Prove",
    "bar",
    "hold",
    "lift_bar",
    "night_line",
    "open_release",
    "pause",
    "promote",
    "resume",
    "roll_back",
    "settle",
    "start",
    "step",
    "withdraw",
]


class Override(Config):
    """A person's word instead of the gate's."""

    actor: str
    """Who says so."""
    reason: str
    """Why."""


def start(engine: Engine, tenant: str, base_version: str, *, actor: str = "up") -> Entry:
    """Make the untouched base model the first champion; the line that stands is returned when there is one."""
    lines = history(engine, tenant)
    first = next((line for line in lines if line.action == "baseline"), None)
    if first is not None:
        return first
    line = Entry(
        tenant=tenant,
        action="baseline",
        version=base_version,
        actor=actor,
        reason="no champion yet, so the base model is the champion",
    )
    seq = lines[-1].seq if lines else 0
    return write(
        engine, [line], seq, line_alert(line, "baseline", "info", f"{base_version} serves as the first champion")
    )


def open_release(
    engine: Engine,
    tenant: str,
    version: str,
    *,
    versions_dir: Path,
    policy: CanaryPolicy,
    prove: Prove,
    actor: str,
    gate: Mapping[str, Any] | None = None,
    override: Override | None = None,
    night_id: str | None = None,
    shadow_only: bool = False,
    shared: str | None = None,
) -> Entry:
    """Gate a version and open its canary at the first step.

    Args:
        shared: the tenant whose champion serves tenants without one of their own: what the canary is compared with.
        gate: the verdict that passed it (its decision must be "promote"), or
        override: the named person who releases it without one.
        shadow_only: an endpoint outside of Ratchet is champion, so no canary may open.
        night_id: the night this belongs to. A night ends once: what it wrote is returned when it is run again, and
            where the release may not open now (another watch, a pause, a bar) the night is held.

    Returns:
        The canary line, the gated line where the policy has versions answer in shadow first, or for a night the line
        that holds it.

    Raises:
        RefusedTransition: it may not open now (without `night_id`).
        RatchetError: it could not be proved in the engine; the alert stands.
        Conflict: another release was decided meanwhile.
    """
    evidence = _grounds(version, gate, override)
    if night_id is not None:
        evidence["night_id"] = night_id
        written = night_line(engine, tenant, night_id)
        if written is not None:
            return written
    if shared is not None:
        inherit(engine, tenant, shared, actor=actor)
    before = current(engine, tenant)
    reason = override.reason if override else str((gate or {}).get("reason") or "the gate promotes it")
    if override is not None:
        actor = override.actor
    gated = Entry(tenant=tenant, action="gated", version=version, actor=actor, reason=reason, evidence=evidence)
    try:
        may_open(before, gated, at=now(), shadow_only=shadow_only)
    except RefusedTransition as refusal:
        if night_id is None:
            raise
        waits = {WAITS: True} if isinstance(refusal, NotNow) else {}
        return hold(engine, tenant, version, reason=str(refusal), night_id=night_id, actor=actor, evidence=waits)
    try:
        file = load_version(versions_dir, version)
        proof = dict(prove(version))
    except RatchetError as error:
        _tell_refused(engine, tenant, version, str(error))
        if night_id is None:
            raise
        return hold(
            engine, tenant, version, reason=f"not proved in the engine: {error}", night_id=night_id, actor=actor
        )
    evidence |= {"parity": proof, "policy": policy.model_dump(mode="json"), "digest": file.digest}
    twin = most_like(versions_dir, version, before.barred)
    if twin is not None:
        evidence["like_barred"] = twin.model_dump(mode="json")
    if policy.shadow_share > 0 and before.gated != version:
        return _open_shadow(engine, before, gated.model_copy(update={"evidence": evidence}), policy, twin)
    canary = gated.model_copy(
        update={
            "action": "canary",
            "previous": before.champion,
            "share": policy.shares[0],
            "reason": f"canary opens: {reason}",
            "evidence": evidence,
        }
    )
    alert = line_alert(
        canary,
        "release_opened",
        "warning" if override or (twin and twin.near_twin) else "info",
        f"{version} gets {policy.shares[0]:.0%} of new users"
        + (f" by {override.actor}'s override of the gate" if override else ""),
        text=f"{reason.rstrip('.')}. Compared with {before.champion} user by user.{_twin_text(twin)}",
        next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
    )
    lines = [*_replaced(before, gated), *([] if before.gated == version else [gated]), canary]
    return write(engine, lines, before.seq, alert)


def _open_shadow(engine: Engine, before: Standing, gated: Entry, policy: CanaryPolicy, twin: Likeness | None) -> Entry:
    line = gated.model_copy(update={"share": policy.shadow_share})
    alert = line_alert(
        line,
        "shadow_opened",
        "warning" if twin and twin.near_twin else "info",
        f"{line.version} answers {policy.shadow_share:.0%} of requests in shadow",
        text=f"{line.reason}. Nobody sees its answers; after {policy.shadow_seconds:g} s its canary opens."
        + _twin_text(twin),
        next_step="`ratchet shadow` compares the answers",
    )
    return write(engine, [*_replaced(before, line), line], before.seq, alert)


def _replaced(before: Standing, newer: Entry) -> list[Entry]:
    """The line that ends another version's time in shadow, where there is one: nothing leaves without a word."""
    if before.gated in (None, newer.version):
        return []
    reason = f"{newer.version} replaces it before its canary opened"
    return [_withdrawn(before, str(before.gated), actor=newer.actor, reason=reason)]


def _twin_text(twin: Likeness | None) -> str:
    if twin is None or not twin.near_twin:
        return ""
    return f" It behaves almost like {twin.version}, which is barred (likeness {twin.likeness:.2f})."


def hold(
    engine: Engine,
    tenant: str,
    version: str,
    *,
    reason: str,
    night_id: str,
    actor: str = "night",
    evidence: Mapping[str, Any] | None = None,
    severity: Severity = "warning",
) -> Entry:
    """End a night without a release: rejected, inconclusive, or not now. Written once per night."""
    written = night_line(engine, tenant, night_id)
    if written is not None:
        return written
    line = Entry(
        tenant=tenant,
        action="held",
        version=version,
        actor=actor,
        reason=reason,
        evidence={**(evidence or {}), "night_id": night_id},
    )
    alert = line_alert(line, "held", severity, f"night {night_id} is held: {version} is not released", text=reason)
    return retry(engine, tenant, lambda before: write(engine, [line], before.seq, alert))


def night_line(engine: Engine, tenant: str, night_id: str) -> Entry | None:
    """How a night ended in the ledger: its canary or held line; None while it has not."""
    for line in history(engine, tenant):
        opened = line.action in ("canary", "held") or (line.action == "gated" and line.share)
        if line.night_id == night_id and opened:
            return line
    return None


def step(engine: Engine, before: Standing, share: float, *, reason: str, evidence: Mapping[str, Any]) -> Entry:
    """Raise the share of new users that the open canary answers.

    Raises:
        Conflict: the ledger moved since `before`.
    """
    line = _of_watch(before, "canary", reason=reason, evidence=evidence, share=share)
    alert = line_alert(line, "canary_step", "info", f"{line.version} gets {share:.0%} of new users", text=reason)
    return write(engine, [line], before.seq, alert)


def promote(
    engine: Engine,
    before: Standing,
    *,
    policy: CanaryPolicy,
    reason: str,
    evidence: Mapping[str, Any],
    actor: str = "controller",
) -> Entry:
    """Make the open canary the champion; the one before it stays on for the holdback.

    Raises:
        Conflict: the ledger moved since `before`.
    """
    line = _of_watch(before, "champion", reason=reason, evidence=evidence, share=policy.holdback, actor=actor)
    alert = line_alert(
        line,
        "promoted",
        "info",
        f"{line.version} is the champion",
        text=f"{reason}. It replaces {line.previous}"
        + (f", which keeps {policy.holdback:.0%} of new users for comparison." if policy.holdback else "."),
        next_step="`ratchet rollback` takes it back",
    )
    return write(engine, [line], before.seq, alert)


def settle(engine: Engine, before: Standing, *, reason: str, evidence: Mapping[str, Any]) -> Entry:
    """End the holdback: the previous champion is superseded and the watch is over.

    Raises:
        Conflict: the ledger moved since `before`.
    """
    assert before.watch is not None, "settle without a watch"
    line = Entry(
        tenant=before.tenant,
        action="superseded",
        version=before.watch.previous,
        previous=before.watch.version,
        actor="controller",
        reason=reason,
        evidence=evidence,
    )
    alert = line_alert(line, "settled", "info", f"{before.watch.version} has settled; the watch is over", text=reason)
    return write(engine, [line], before.seq, alert)


def withdraw(
    engine: Engine,
    before: Standing,
    *,
    actor: str,
    reason: str,
    evidence: Mapping[str, Any] | None = None,
) -> Entry:
    """End the open canary (or drop what is gated) with no verdict against it; it is not barred.

    Raises:
        RefusedTransition: there is neither.
        Conflict: the ledger moved since `before`.
    """
    version = before.canary or before.gated
    if version is None:
        raise RefusedTransition(
            f"tenant {before.tenant!r} has no open canary to withdraw; `ratchet status` shows what is"
        )
    line = _withdrawn(before, version, actor=actor, reason=reason, evidence=evidence)
    alert = line_alert(
        line, "withdrawn", "warning", f"{version} is withdrawn; {before.champion} serves all", text=reason
    )
    return write(engine, [line], before.seq, alert)


def _withdrawn(
    before: Standing, version: str, *, actor: str, reason: str, evidence: Mapping[str, Any] | None = None
) -> Entry:
    return Entry(
        tenant=before.tenant,
        action="withdrawn",
        version=version,
        previous=before.champion,
        actor=actor,
        reason=reason,
        evidence=evidence or {},
    )


def _grounds(version: str, gate: Mapping[str, Any] | None, override: Override | None) -> dict[str, Any]:
    if override is not None:
        if not override.actor.strip() or not override.reason.strip():
            raise RefusedTransition(f"{version}: an override of the gate needs a name and a reason; give both")
        return {"override": override.model_dump(mode="json"), **({"gate": dict(gate)} if gate else {})}
    if gate is None or gate.get("decision") != "promote":
        found = "no verdict" if gate is None else f"verdict {gate.get('decision')!r}"
        raise RefusedTransition(f"{version} has {found}; a release needs the gate's promote, or a named override")
    return {"gate": dict(gate)}


def _of_watch(
    before: Standing,
    action: Action,
    *,
    reason: str,
    evidence: Mapping[str, Any],
    share: float,
    actor: str = "controller",
) -> Entry:
    assert before.watch is not None, f"{action} without a watch"
    return Entry(
        tenant=before.tenant,
        action=action,
        version=before.watch.version,
        previous=before.watch.previous,
        share=share,
        actor=actor,
        reason=reason,
        evidence=evidence,
    )


def _tell_refused(engine: Engine, tenant: str, version: str, why: str) -> None:
    with begin_write(engine) as connection:
        enqueue(
            connection,
            Alert(
                kind="release_refused",
                severity="critical",
                tenant=tenant,
                title=f"{version} was refused by the engine",
                text=why,
                next_step="the champion goes on serving; look at the version and its engine",
                payload={"version": version, "reason": why},
            ),
        )
