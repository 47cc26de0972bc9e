"""Hold one batch on its way through ingest: what was read, and each interaction or document with all feedback on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import Field

from feedback.abuse.agreement import Claim
from feedback.abuse.config import AbuseConfig
from feedback.duplicates.fingerprints import DedupeConfig
from feedback.events import Feedback, Interaction
from feedback.examples import ShapeRules
from feedback.ingest.build_examples import Built, build
from feedback.redaction.redact import RedactConfig
from feedback.store.store import Ready
from infra.settings import Config

Key = tuple[str, str]


class NormaliseConfig(Config):
    """What text must be like to be worth learning from."""

    max_chars: int = 100_000
    """Longest prompt message, answer or document, in characters; longer ones are quarantined, and of such a text only
    the beginning is redacted and kept."""
    unicode: bool = True
    """Whether to bring text into Unicode normal form C and line ends to \\n."""
    max_hours_ahead: float = Field(default=24.0, ge=0, allow_inf_nan=False)
    """How far after its arrival here feedback, or the interaction it is about, may be dated; what is dated later is
    quarantined. Windows, ages and suspensions count from the latest times, so one row "valid until 9999" would move
    them all."""


@dataclass(frozen=True)
class Steps:
    """The configs of what is done with a batch."""

    normalise: NormaliseConfig
    redact: RedactConfig
    abuse: AbuseConfig
    shapes: ShapeRules
    dedupe: DedupeConfig


@dataclass(frozen=True)
class RawBatch:
    """What was read for one batch."""

    fresh: Sequence[Ready]
    """Feedback whose turn it is."""
    interactions: Mapping[Key, Interaction]
    """Their interactions, as far as known."""
    history: Mapping[Key, Sequence[Ready]]
    """All feedback on these interactions so far, older batches' too."""
    released: Mapping[Key, str | None]
    """(tenant, event) a person released -> corrected value as JSON, or None."""


class HeldReason(NamedTuple):
    """Why an event is held."""

    step: str
    """Step that holds it."""
    code: str
    """Reason in a word."""
    detail: str
    """Reason in a sentence."""


@dataclass
class Subject:
    """One interaction (or document) on its way through."""

    key: Key
    interaction: Interaction | None
    events: list[Feedback]
    held: dict[str, HeldReason] = field(default_factory=dict)
    """Event -> why it is held."""
    claims: dict[str, Claim] = field(default_factory=dict)
    """event -> what it claims of the prompt, for those of `good` that claim something."""
    language_mismatches: set[str] = field(default_factory=set)
    """Events whose label is in another language than the prompt."""
    built: Built = field(default_factory=Built)
    """What `good` makes."""

    @property
    def good(self) -> list[Feedback]:
        """What nothing holds so far."""
        return [e for e in self.events if e.event_id not in self.held]

    def shape(self, rules: ShapeRules) -> None:
        """Make the examples of what is good, again if need be."""
        good = self.good
        self.built = build(self.interaction, good, rules) if good else Built()
