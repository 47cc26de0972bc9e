"""Describe what one batch adds to the ingest index (feedback/index/ingest_index.py): values, staged with the batch.

Their JSON is what a batch is staged with, perhaps by an earlier or a later release: its keys stay as they are.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class IndexEntry(NamedTuple):
    """One accepted example, as duplicates are found by it."""

    tenant: str
    subject: str
    shape: str
    key: int
    label: str
    trusted: bool
    example_id: str


class Sketch(NamedTuple):
    """The MinHash signature of a subject's prompt."""

    tenant: str
    subject: str
    signature: bytes


class ContradictingPair(NamedTuple):
    """Two accepted examples of nearly the same prompt with different answers; the `other` was there before."""

    tenant: str
    subject: str
    example_id: str
    other_subject: str
    other_id: str


class Merge(NamedTuple):
    """An event whose example was merged into one that stands: the `owner`'s."""

    tenant: str
    owner: str
    """Subject of the example that stands."""
    example_id: str
    """That example."""
    subject: str
    """Subject of what was merged into it."""
    event_id: str
    """Its event."""


class TrustedLabel(NamedTuple):
    """An answer to a prompt that trusted people stand for."""

    tenant: str
    subject: str
    prompt: str
    answer: str


class ActorActivity(NamedTuple):
    """How many events an untrusted actor gave in one hour (counted from 1970)."""

    tenant: str
    actor: str
    hour: int
    events: int


class AgreementSums(NamedTuple):
    """How far an account's claims were borne out, added up, beside what was usual when each was made."""

    claims: int = 0
    """How many claims could be compared."""
    total: float = 0.0
    """Sum of their scores."""
    usual: float = 0.0
    """Sum of the scores that were usual at the time."""
    variance: float = 0.0
    """Sum of the variances of one usual score at the time."""

    def plus(self, other: AgreementSums) -> AgreementSums:
        """Add both up."""
        return AgreementSums(
            self.claims + other.claims,
            self.total + other.total,
            self.usual + other.usual,
            self.variance + other.variance,
        )


class ActorAgreement(NamedTuple):
    """The sums of an untrusted actor's claims in one hour (counted from 1970)."""

    tenant: str
    actor: str
    hour: int
    sums: AgreementSums


class HeldEvent(NamedTuple):
    """An event that stays out when its interaction is looked at again, and why."""

    tenant: str
    event_id: str
    code: str
    detail: str


class Suspension(NamedTuple):
    """An actor who is not heard until a time (seconds since 1970), and why."""

    tenant: str
    actor: str
    until: float
    detail: str


@dataclass
class IndexUpdate:
    """What one batch adds to the index."""

    subjects: list[tuple[str, str]] = field(default_factory=list)
    """(tenant, subject) whose earlier rows are replaced."""
    sketches: list[Sketch] = field(default_factory=list)
    entries: list[IndexEntry] = field(default_factory=list)
    """Accepted examples."""
    contradictions: list[ContradictingPair] = field(default_factory=list)
    merged: list[Merge] = field(default_factory=list)
    labels: list[TrustedLabel] = field(default_factory=list)
    activity: list[ActorActivity] = field(default_factory=list)
    agreement: list[ActorAgreement] = field(default_factory=list)
    held: list[HeldEvent] = field(default_factory=list)
    suspended: list[Suspension] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)
    """(tenant, event) that a person let in: no longer held."""

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and objects, as a batch is staged with them."""
        return {
            "subjects": self.subjects,
            "sketches": [(tenant, subject, base64.b64encode(sig).decode()) for tenant, subject, sig in self.sketches],
            "entries": [entry._asdict() for entry in self.entries],
            "contradictions": self.contradictions,
            "merged": self.merged,
            "labels": self.labels,
            "activity": self.activity,
            "standing": [(tenant, actor, hour, *sums) for tenant, actor, hour, sums in self.agreement],
            "held": self.held,
            "suspended": self.suspended,
            "released": self.released,
        }

    @classmethod
    def from_json(cls, staged: Mapping[str, Any]) -> IndexUpdate:
        """Read what a batch was staged with; lists that its release did not have yet are empty."""
        return cls(
            subjects=[(tenant, subject) for tenant, subject in staged["subjects"]],
            sketches=[Sketch(tenant, subject, base64.b64decode(sig)) for tenant, subject, sig in staged["sketches"]],
            entries=[IndexEntry(*(entry[name] for name in IndexEntry._fields)) for entry in staged["entries"]],
            contradictions=[ContradictingPair(*row) for row in staged.get("contradictions", ())],
            merged=[Merge(*row) for row in staged.get("merged", ())],
            labels=[TrustedLabel(*row) for row in staged["labels"]],
            activity=[ActorActivity(*row) for row in staged["activity"]],
            agreement=[
                ActorAgreement(tenant, actor, hour, AgreementSums(*sums))
                for tenant, actor, hour, *sums in staged.get("standing", ())
            ],
            held=[HeldEvent(*row) for row in staged["held"]],
            suspended=[Suspension(*row) for row in staged["suspended"]],
            released=[(tenant, event_id) for tenant, event_id in staged["released"]],
        )
