"""Save the facts of each act for the report, as JSON in the demo's home.

Each act writes one file when it ends, so that acts played one at a time still make one report.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import AliasChoices, Field

from evaluation.proportions import wilson_interval
from infra.artifact import atomic_write
from infra.settings import Config


class Score(Config):
    """How many answers of one version were exactly right."""

    label: str
    """What the version is to the story: base, challenger sft-lora, live before, ..."""
    version: str
    """Name of the version."""
    measured_on: str
    """Which tickets: the gate's items, held-out tickets, live tickets."""
    right: int
    """Exactly right answers."""
    total: int
    """All answers."""

    @property
    def share(self) -> float:
        """Right answers as a share of 1; 0 when there are none at all."""
        return self.right / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the share."""
        return wilson_interval(self.right, self.total)


class Thumbed(Config):
    """One thumb."""

    at: datetime
    """When the answer was given."""
    version: str
    """Version that gave it."""
    up: bool
    """What the customer said."""


class Happening(Config):
    """One thing that happened, for the timeline."""

    at: datetime
    """When it began."""
    until: datetime | None = None
    """When it ended, for things that take time."""
    event: str = Field(validation_alias=AliasChoices("event", "what"), serialization_alias="what")
    """In a few words."""
    decision: bool = False
    """Whether it changed who answers: drawn as a line over the thumbs."""


class LedgerLine(Config):
    """One line of the release ledger, as shown to people."""

    seq: int
    """Place in the ledger."""
    at: datetime
    """When."""
    action: str
    """What was done."""
    version: str
    """To which version."""
    actor: str
    """By whom."""
    reason: str
    """Why."""


class ReceivedAlert(Config):
    """One alert, as the demo's own webhook receiver got it."""

    at: datetime
    """When it arrived."""
    kind: str
    """What kind of alert."""
    severity: str
    """How bad."""
    title: str
    """Its headline."""
    body: str
    """Its text."""
    signed: bool
    """Whether its signature was right."""


class Claim(Config):
    """Something the act set out to show, and whether it did."""

    text: str
    """What was to be shown."""
    holds: bool
    """Whether it came out so."""
    numbers: str = Field(validation_alias=AliasChoices("numbers", "found"), serialization_alias="found")
    """What came out, in numbers."""


class ActFacts(Config):
    """Everything one act leaves behind."""

    act: int
    """1, 2 or 3."""
    title: str
    """Its name."""
    started: datetime
    """When it began."""
    ended: datetime
    """When it was over."""
    scores: tuple[Score, ...] = ()
    """Measured accuracies."""
    thumbs: tuple[Thumbed, ...] = ()
    """Every thumb left in this act, in time."""
    happenings: tuple[Happening, ...] = ()
    """What happened, in time."""
    quarantine: dict[str, int] = {}
    """Reason -> how many rows were held back for it in this act."""
    quarantined: tuple[tuple[str, str], ...] = ()
    """A few rows held back: (reason, what it said)."""
    ledger: tuple[LedgerLine, ...] = ()
    """The whole ledger at the end of the act."""
    alerts: tuple[ReceivedAlert, ...] = ()
    """Alerts received during the act."""
    claims: tuple[Claim, ...] = ()
    """What was to be shown, and whether it came out so."""
    notes: tuple[str, ...] = ()
    """Sentences worth telling: the gate's reasons, what was left out and why."""
    names: dict[str, str] = {}
    """Version -> what to call it."""

    @property
    def shown(self) -> bool:
        """Whether everything that was to be shown came out so."""
        return all(claim.holds for claim in self.claims)


def write_facts(folder: Path, facts: ActFacts) -> Path:
    """Save an act's facts; an earlier play of the same act is replaced."""
    path = folder / f"act-{facts.act}.json"
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(path, facts.model_dump_json(indent=2, by_alias=True))
    return path


def read_facts(folder: Path) -> list[ActFacts]:
    """The facts of all acts played so far, in order."""
    return [ActFacts.model_validate_json(path.read_text()) for path in sorted(folder.glob("act-*.json"))]
