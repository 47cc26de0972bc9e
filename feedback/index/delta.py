"""What one batch adds to the ingest index (feedback/index/index.py), as values staged with the batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One accepted example, as duplicates are found by it."""

    tenant: str
    subject: str
    shape: str
    key: int
    label: str
    trusted: bool
    example_id: str


class Standing(NamedTuple):
    """How far an account's claims were borne out, added up, beside what was usual when each was made."""

    claims: int = 0
    """How many claims could be compared."""
    total: float = 0.0
    """Sum of their scores."""
    usual: float = 0.0
    """Sum of the scores that were usual at the time."""
    variance: float = 0.0
    """Sum of the variances of one usual score at the time."""

    def plus(self, other: Standing) -> Standing:
        """Both together."""
        return Standing(
            self.claims + other.claims,
            self.total + other.total,
            self.usual + other.usual,
            self.variance + other.variance,
        )


@dataclass
class Lesson:
    """What one batch teaches; plain JSON through `as_json`, so that it can be staged with the batch."""

    subjects: list[tuple[str, str]] = field(default_factory=list)
    """(tenant, subject) whose earlier rows are replaced."""
    sketches: list[tuple[str, str, str]] = field(default_factory=list)
    """(tenant, subject, base64 signature)."""
    entries: list[dict[str, Any]] = field(default_factory=list)
    """Accepted examples as `Entry` fields."""
    contradictions: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """(tenant, subject, example, other subject, its example): nearly the same prompt, another answer."""
    merged: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """(tenant, subject of an example that stands, that example, subject of what was merged into it, its event)."""
    labels: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(tenant, subject, prompt, answer) that trusted people stand for."""
    activity: list[tuple[str, str, int, int]] = field(default_factory=list)
    """(tenant, actor, hour since 1970, events) of untrusted actors."""
    standing: list[tuple[str, str, int, int, float, float, float]] = field(default_factory=list)
    """(tenant, actor, hour since 1970, then the fields of `Standing`) of untrusted actors."""
    held: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(tenant, event, code, detail) of events that stay out when their interaction is looked at again."""
    suspended: list[tuple[str, str, float, str]] = field(default_factory=list)
    """(tenant, actor, until (seconds since 1970), detail)."""
    released: list[tuple[str, str]] = field(default_factory=list)
    """(tenant, event) that a person let in: no longer held."""

    def as_json(self) -> dict[str, Any]:
        """As plain lists and objects."""
        return dict(vars(self))  # asdict would copy every row deeply
