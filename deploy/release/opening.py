"""Open a release: check that it may, prove the version in the serving engines, and write its shadow or its canary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from deploy.canary.policy import CanaryPolicy
from deploy.ledger.evidence import Evidence, Override, Prove, VerdictSummary
from deploy.ledger.ledger import Entry, RefusedTransition, ReleaseState, current
from deploy.ledger.state import TemporarilyBlocked
from deploy.ledger.writes import entry_alert, write
from deploy.release.lifecycle import hold, night_entry, withdrawal
from deploy.release.preconditions import check_preconditions
from deploy.release.shared_champion import inherit
from deploy.versions.versions import load_version
from evaluation.gate.likeness import Likeness, most_like
from infra.alerts.outbox import Alert, enqueue
from infra.database.connect import begin_write, now
from infra.errors import RatchetError


@dataclass(frozen=True)
class Releases:
    """Opens releases for one tenant."""

    database: Engine
    tenant: str
    versions_dir: Path
    policy: CanaryPolicy
    """How the canary is watched; it is stated in the ledger and counts for this release from then on."""
    prove: Prove
    shadow_only: bool = False
    """Whether an endpoint outside of Ratchet is champion, so that no canary may open."""
    shared: str | None = None
    """The tenant whose champion serves tenants without one of their own: what the canary is compared with."""

    def open(
        self,
        version: str,
        *,
        actor: str,
        gate: VerdictSummary | None = None,
        override: Override | None = None,
        night_id: str | None = None,
    ) -> Entry:
        """Gate a version and open its canary at the first step.

        Args:
            gate: the verdict that passed it (its decision must be "promote"), or
            override: the named person who releases it without one.
            night_id: the night this belongs to. A night ends once: what it wrote is returned when it is run again, and
                where the release may not open now (another watch, a pause, a bar) the night is held.

        Returns:
            The canary entry, the gated entry where the policy has versions answer in shadow first, or for a night the
            entry that holds it.

        Raises:
            RefusedTransition: it may not open now (without `night_id`).
            RatchetError: it could not be proved in the engine; the alert stands.
            Conflict: another release was decided meanwhile.
        """
        grounds = _grounds(version, gate, override)
        if night_id is not None:
            grounds = grounds.model_copy(update={"night_id": night_id})
            written = night_entry(self.database, self.tenant, night_id)
            if written is not None:
                return written
        if self.shared is not None:
            inherit(self.database, self.tenant, self.shared, actor=actor)
        state = current(self.database, self.tenant)
        gated = Entry(
            tenant=self.tenant,
            action="gated",
            version=version,
            actor=override.actor if override else actor,
            reason=_reason(gate, override),
            evidence=grounds,
        )
        try:
            check_preconditions(state, gated, at=now(), shadow_only=self.shadow_only)
        except RefusedTransition as refusal:
            if night_id is None:
                raise
            waits = Evidence(waits=True) if isinstance(refusal, TemporarilyBlocked) else None
            return self._hold(gated, str(refusal), night_id, waits)
        try:
            evidence = self._proved(gated, state)
        except RatchetError as error:
            self._alert_refused(version, str(error))
            if night_id is None:
                raise
            return self._hold(gated, f"not proved in the engine: {error}", night_id)
        if self.policy.shadow_share > 0 and state.gated != version:
            return self._open_shadow(state, gated.model_copy(update={"evidence": evidence}))
        return self._open_canary(state, gated, evidence)

    def _hold(self, gated: Entry, reason: str, night_id: str, evidence: Evidence | None = None) -> Entry:
        return hold(
            self.database,
            self.tenant,
            gated.version,
            reason=reason,
            night_id=night_id,
            actor=gated.actor,
            evidence=evidence,
        )

    def _proved(self, gated: Entry, state: ReleaseState) -> Evidence:
        """Load and prove the version; its grounds, with what that measured."""
        file = load_version(self.versions_dir, gated.version)
        found = {
            "parity": self.prove(gated.version),
            "policy": self.policy.model_dump(mode="json"),
            "digest": file.digest,
        }
        twin = most_like(self.versions_dir, gated.version, state.barred)
        return gated.evidence.model_copy(update={**found, **({"like_barred": twin} if twin is not None else {})})

    def _open_shadow(self, state: ReleaseState, gated: Entry) -> Entry:
        entry = gated.model_copy(update={"share": self.policy.shadow_share})
        twin = _near_twin(entry.evidence)
        alert = entry_alert(
            entry,
            "shadow_opened",
            "warning" if twin else "info",
            f"{entry.version} answers {self.policy.shadow_share:.0%} of requests in shadow",
            text=f"{entry.reason}. Nobody sees its answers; after {self.policy.shadow_seconds:g} s its canary opens."
            + _twin_text(twin),
            next_step="`ratchet shadow` compares the answers",
        )
        return write(self.database, [*_replaced(state, entry), entry], state.seq, alert)

    def _open_canary(self, state: ReleaseState, gated: Entry, evidence: Evidence) -> Entry:
        share, override, twin = self.policy.shares[0], evidence.override, _near_twin(evidence)
        canary = gated.model_copy(
            update={
                "action": "canary",
                "previous": state.champion,
                "share": share,
                "reason": f"canary opens: {gated.reason}",
                "evidence": evidence,
            }
        )
        alert = entry_alert(
            canary,
            "release_opened",
            "warning" if override or twin else "info",
            f"{canary.version} gets {share:.0%} of new users"
            + (f" by {override.actor}'s override of the gate" if override else ""),
            text=f"{gated.reason.rstrip('.')}. Compared with {state.champion} user by user.{_twin_text(twin)}",
            next_step="`ratchet status` shows the watch; `ratchet rollback` ends it",
        )
        entries = [*_replaced(state, gated), *([] if state.gated == gated.version else [gated]), canary]
        return write(self.database, entries, state.seq, alert)

    def _alert_refused(self, version: str, why: str) -> None:
        with begin_write(self.database) as connection:
            enqueue(
                connection,
                Alert(
                    kind="release_refused",
                    severity="critical",
                    tenant=self.tenant,
                    title=f"{version} was refused by the engine",
                    text=why,
                    next_step="the champion goes on serving; look at the version and its engine",
                    payload={"version": version, "reason": why},
                ),
            )


def _grounds(version: str, gate: VerdictSummary | None, override: Override | None) -> Evidence:
    if override is not None:
        if not override.actor.strip() or not override.reason.strip():
            raise RefusedTransition(f"{version}: an override of the gate needs a name and a reason; give both")
        return Evidence(override=override, gate=gate) if gate is not None else Evidence(override=override)
    if gate is None or gate.decision != "promote":
        has = "no verdict" if gate is None else f"verdict {gate.decision!r}"
        raise RefusedTransition(f"{version} has {has}; a release needs the gate's promote, or a named override")
    return Evidence(gate=gate)


def _reason(gate: VerdictSummary | None, override: Override | None) -> str:
    if override is not None:
        return override.reason
    return (gate.reason if gate is not None else None) or "the gate promotes it"


def _replaced(state: ReleaseState, newer: Entry) -> list[Entry]:
    """The entry that ends another version's time in shadow, where there is one: nothing leaves without a word."""
    if state.gated in (None, newer.version):
        return []
    reason = f"{newer.version} replaces it before its canary opened"
    return [withdrawal(state, str(state.gated), actor=newer.actor, reason=reason)]


def _near_twin(evidence: Evidence) -> Likeness | None:
    twin = evidence.like_barred
    return twin if twin is not None and twin.near_twin else None


def _twin_text(twin: Likeness | None) -> str:
    if twin is None:
        return ""
    return f" It behaves almost like {twin.version}, which is barred (likeness {twin.likeness:.2f})."
