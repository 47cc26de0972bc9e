"""State what a ledger entry rests on: verdict, proof, policy, pause, as typed parts of one JSON value.

Each writer states its own parts, and only those are written. What only people read (the canary's figures, the shadow's
report, the blind judge's verdict) is kept as it came, beside the parts that code reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import JsonValue, PlainSerializer, SerializerFunctionWrapHandler, model_serializer

from evaluation.gate.likeness import Likeness
from infra.stored_model import Stored

if TYPE_CHECKING:
    from evaluation.gate.verdict import Verdict

IsoTime = Annotated[datetime, PlainSerializer(lambda value: value.isoformat(), return_type=str, when_used="json")]
"""A time that is written as `datetime.isoformat` writes it."""


class Part(Stored):
    """A part of an entry's evidence; what nobody stated is not written."""

    @model_serializer(mode="wrap")
    def _only_stated(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        declared = type(self).model_fields
        return {
            name: value
            for name, value in handler(self).items()
            if name not in declared or name in self.model_fields_set
        }


class NightReference(Part):
    """Where what led to a verdict is kept."""

    snapshot: str | None = None
    """The snapshot that the night trained on."""
    mlflow_run: str | None = None
    """The night's run in MLflow."""
    note: str | None = None
    """What the person who asked for the night noted."""
    judged_in: str | None = None
    """The earlier night whose verdict this is, where its winner was released later."""


class VerdictSummary(NightReference):
    """What the ledger keeps of a gate's verdict; the whole of it stands in the night's record."""

    decision: str
    """promote, reject or inconclusive."""
    reason: str | None = None
    """Its first reason."""
    champion: str | None = None
    """The champion that the version was compared with."""
    primary: str | None = None
    """The primary metric."""
    alpha: float | None = None
    """The gate's level."""
    scorecard: str | None = None
    """Digest of the scorecard."""
    policy: str | None = None
    """Digest of the gate's policy."""
    gain: float | None = None
    """Estimated gain over the champion."""

    @classmethod
    def of(cls, verdict: Verdict, reference: NightReference | None = None) -> VerdictSummary:
        """Summarise a verdict, with where what led to it is kept."""
        winner = next((c for c in verdict.challengers if c.version == verdict.winner), None)
        summary = cls(
            decision=verdict.decision,
            reason=verdict.reasons[0] if verdict.reasons else verdict.decision,
            champion=verdict.champion,
            primary=verdict.primary,
            alpha=verdict.alpha,
            scorecard=verdict.scorecard_digest,
            policy=verdict.policy_digest,
            gain=winner.gain if winner else None,
        )
        return summary.model_copy(update=reference.model_dump() if reference else {})


class Override(Part):
    """A person's word instead of the gate's."""

    actor: str
    """Who says so."""
    reason: str
    """Why."""


class Proof(Part):
    """What proving a version in the serving engines measured (deploy/versions/parity.py)."""

    version: str | None = None
    """The version that was proved."""
    tokens: int | None = None
    """Log-probabilities compared."""
    effect: float | None = None
    """Root mean square of the recorded effect, in nats a token."""
    relative_error: float | None = None
    """||error|| / ||effect||."""
    cosine: float | None = None
    """Between the engine's effect and the recorded one."""
    base_error: float | None = None
    """Root mean square difference of the base, in nats a token."""
    base: bool | None = None
    """Whether it is the untouched base model."""
    proved: bool | None = None
    """False: nothing was there to prove it by."""
    engines: int | None = None
    """Serving engines that proved it."""
    engines_away: int | None = None
    """Serving engines that did not answer."""


Prove = Callable[[str], Proof]
"""Loads the named version in every engine that will serve it and proves that it is the one that answers.

Raises RatchetError when it cannot be proved (deploy/versions/parity.py makes one).
"""


class Evidence(Part):
    """What an entry rests on."""

    night_id: str | None = None
    """The night that wrote the entry: its action happens once per night."""
    gate: VerdictSummary | None = None
    """The verdict that passed the version."""
    override: Override | None = None
    """The person who releases it without one."""
    parity: Proof | None = None
    """What proving the version in the engine measured."""
    policy: JsonValue = None
    """The canary policy that counts from here on (`deploy.canary.policy.stated_policy` reads it)."""
    digest: str | None = None
    """SHA-256 of the weights."""
    like_barred: Likeness | None = None
    """The barred version that it behaves most like."""
    waits: bool | None = None
    """held: its version was refused for a cause that passes."""
    paused_until: IsoTime | None = None
    """When the pause that the entry starts ends by itself."""
    targets_refused: Mapping[str, str] | None = None
    """rolled_back: version -> why traffic could not go back to it."""
    target_not_proved: Mapping[str, str] | None = None
    """rolled_back: version -> why the one that is live now could not be proved."""
    signal: str | None = None
    """rolled_back: the signal of the canary that took the version back."""
    shared: str | None = None
    """inherited: the tenant whose champion is taken over."""
    line: int | None = None
    """inherited: the entry that made it champion there."""
    rollback: int | None = None
    """unbarred: the entry whose bar is lifted."""
