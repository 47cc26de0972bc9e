"""Define the scorecard: every measurement of champion, challengers and base on the same items, as one frozen value.

It carries the per-item values themselves (not only means), so that a verdict is a pure function of scorecard and
policy and can be replayed years later from `scorecard.json` alone.
Values by item live beside it in `items.parquet`, answers' texts in `answers.parquet`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from evaluation.version_card import VersionCard
from infra.stored_model import Stored

Direction = Literal["higher", "lower", "neutral"]


class ScoredItem(Stored):
    """One question that every version answered."""

    item_id: str
    """Its id in the snapshot's gate set (or in the regression pack)."""
    group: str
    """The split group (conversation or user): the unit of every test."""
    part: Literal["rolling", "frozen"] = "rolling"
    """Which half of the gate set it belongs to."""
    uses: int = 0
    """How many earlier verdicts used it; 0 is a fresh item."""
    slices: Mapping[str, str] = {}
    """Dimension -> value: tenant, task, length, language, age."""


class Table(Stored):
    """Items, and per metric and version one value per item in the same order (None: does not apply to the item)."""

    items: tuple[ScoredItem, ...] = ()
    """Sorted by item id."""
    scores: Mapping[str, Mapping[str, tuple[float | None, ...]]] = {}
    """Metric -> version -> values."""

    @model_validator(mode="after")
    def _whole(self) -> Table:
        ids = [item.item_id for item in self.items]
        if ids != sorted(set(ids)):
            raise ValueError("items must be unique and sorted by item_id")
        for metric, versions in self.scores.items():
            for version, values in versions.items():
                if len(values) != len(ids):
                    raise ValueError(f"{metric} of {version} has {len(values)} values for {len(ids)} items")
        return self


class MetricInfo(Stored):
    """What a metric's numbers mean, so that a stored scorecard needs no code to be read."""

    name: str
    """Registry name."""
    direction: Direction
    """Whether more or less is better; neutral metrics are reported and never tested."""
    binary: bool
    """True when each item's value is 0 or 1."""
    table: Literal["gate", "regression"] = "gate"
    """Which table holds its values."""
    description: str = ""
    """One sentence for people."""
    judged_by: str = ""
    """The reward model that gives it, as in `VersionCard.optimised_against`; empty for all other metrics."""

    def amount(self, value: float) -> str:
        """Format a signed difference: points for yes/no metrics, else the metric's own units."""
        return f"{100 * value:+.1f} points" if self.binary else f"{value:+.4f}"


class Estimate(Stored):
    """Mean of a metric for one version over a part of the items, by unit."""

    metric: str
    """Registry name."""
    version: str
    """Whose."""
    part: Literal["all", "rolling", "frozen", "fresh"]
    """Which items; fresh ones were used by no earlier verdict."""
    mean: float
    """Mean of group means."""
    low: float
    """Lower confidence limit (BCa bootstrap, 95%)."""
    high: float
    """Upper confidence limit."""
    items: int
    """Items the metric applied to."""
    units: int
    """Groups they belong to."""


class Change(Stored):
    """Paired change of a metric between two versions."""

    metric: str
    """Registry name."""
    version: str
    """The newer version."""
    since: str
    """The version it is compared with: the champion, the untouched base, or its recipe's own sft stage."""
    slice: str = "all"
    """"all", or "dimension=value"."""
    mean: float
    """Mean paired difference by unit, in the metric's own direction."""
    low: float
    """Lower confidence limit (BCa bootstrap, 95%)."""
    high: float
    """Upper confidence limit."""
    units: int
    """Units compared."""


class NoiseFloor(Stored):
    """How much a metric moves when nothing changed."""

    same_weights: float | None = None
    """Absolute mean difference when the champion answers the same items again in other batches."""
    same_weights_items: int = 0
    """Items that were answered twice."""
    seed_to_seed: float | None = None
    """Spread between versions of one recipe that differ by seed alone."""
    earlier: float | None = None
    """What earlier nights on this hardware measured, pooled (`evaluation/run/noise_floors.py`)."""

    @property
    def floor(self) -> float:
        """The largest of the three; 0 when none was measured."""
        return max(self.same_weights or 0.0, self.seed_to_seed or 0.0, self.earlier or 0.0)


class JudgeReport(Stored):
    """How a judge did its work."""

    name: str
    """Registry name."""
    state: Literal["ok", "down", "over_budget"]
    """Anything but ok makes the verdict inconclusive."""
    comparisons: int = 0
    """Pairs it was asked about."""
    calls: int = 0
    """Requests sent; cached answers cost none."""
    tokens: int = 0
    """Tokens billed."""
    ties: int = 0
    """Pairs it called equal, order flips included."""
    flipped: int = 0
    """Pairs whose winner changed with the order (counted as ties)."""
    first_preferred: float | None = None
    """Share of its decided replies that preferred the answer shown first; 0.5 without a bias. Asking in both orders
    takes the bias out of the win-rate; this says how large it is."""
    cost: float | None = None
    """What its tokens cost, where a price is configured."""
    length_controlled: bool = False
    """Whether a liking for long answers was taken out of its win-rates."""
    model_digest: str = ""
    """"reward:" + digest of the reward model, for a judge that is one."""
    human_agreement: float | None = None
    """Share of people's preferences it agreed with, where the items carry some."""
    human_pairs: int = 0
    """Preferences that share was measured on."""
    detail: str = ""
    """What went wrong, in words."""


class SetAside(Stored):
    """A gate item that no version was asked."""

    item_id: str
    """Its id."""
    reason: str
    """Why: the chat template's own words."""


class Scorecard(Stored):
    """All measurements of one night. `evaluation.gate.decide.decide` needs nothing else but a policy."""

    schema_version: Literal[1] = 1
    """Of this file's shape."""
    night_id: str = ""
    """The night that asked for it."""
    champion: str
    """Version that is live."""
    base: str
    """The untouched base's version."""
    items_digest: str
    """Digest of the questions, references and groups; also seeds the tests, so that values never choose their signs."""
    versions: tuple[VersionCard, ...]
    """Everything measured, sorted by version."""
    failed_challengers: tuple[str, ...] = ()
    """Challengers launched that night that have no weights to score; each counts in the correction with p = 1."""
    metrics: tuple[MetricInfo, ...]
    """What was measured, sorted by name."""
    gate: Table
    """Per-item values on the gate set."""
    regression: Table = Table()
    """Per-item values on the base-ability tasks."""
    estimates: tuple[Estimate, ...] = ()
    """Means with intervals; for reading, not for deciding."""
    changes: tuple[Change, ...] = ()
    """Paired changes since champion and base; for reading, not for deciding."""
    noise: Mapping[str, NoiseFloor] = {}
    """Metric -> noise floors on this hardware."""
    judges: tuple[JudgeReport, ...] = ()
    """Judges that were asked."""
    uses: Mapping[str, int] = {}
    """Number of earlier verdicts -> gate items that they used; "0" counts the fresh ones."""
    set_aside: tuple[SetAside, ...] = ()
    """Gate items that the base's chat template refuses: nobody could be asked them, and they stand in no table."""
    contaminated_items: int | None = None
    """Gate items whose text or group was found in training data; None when nobody looked."""
    near_copies: int | None = None
    """Further gate items to whose question training data hold nearly the same one (word 3-shingles, Jaccard); None when
    nobody looked. Snapshots leave such rows out, so these come from data that was cut otherwise."""
    hardware: str = ""
    """Where it was measured, in words (not part of the digest)."""
    items_file: str = "items.parquet"
    """Per-item table beside this file (not part of the digest)."""
    items_file_digest: str = ""
    """SHA-256 of that table (not part of the digest)."""
    created_at: datetime | None = None
    """When it was finished (not part of the digest)."""
    seconds: float = Field(default=0.0, ge=0)
    """How long the evaluation ran (not part of the digest)."""

    @property
    def digest(self) -> str:
        """Digest of what was measured: times, places and clocks are left out, so a resumed run has the same one."""
        content = self.model_dump(
            mode="json", exclude={"hardware", "items_file", "items_file_digest", "created_at", "seconds"}
        )
        if content["near_copies"] is None:
            del content["near_copies"]  # of a card written before anybody counted them
        if not content["set_aside"]:
            del content["set_aside"]  # of one written before there were any
        for card in content["versions"]:
            del card["seconds_per_token"]
        from infra.artifact import key_of

        return key_of(content)

    @property
    def set_aside_note(self) -> str:
        """How many gate items were set aside, and why, in a sentence; empty where none was."""
        if not self.set_aside:
            return ""
        reasons = Counter(item.reason for item in self.set_aside).most_common()
        causes = "; ".join(f"{count} because {reason}" for reason, count in reasons[:3])
        more = f"; and {len(reasons) - 3} other reasons" if reasons[3:] else ""
        total = len(self.set_aside) + len(self.gate.items)
        return f"{len(self.set_aside)} of {total} gate items were set aside for all versions: {causes}{more}."

    def card(self, version: str) -> VersionCard | None:
        """Get the card of `version`, or None."""
        return next((card for card in self.versions if card.version == version), None)

    def metric(self, name: str) -> MetricInfo | None:
        """Get the metric called `name`, or None when it was not measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def noise_floor(self, name: str) -> float:
        """Get how much the metric moves when nothing changed; 0 where that was not measured."""
        noise = self.noise.get(name)
        return noise.floor if noise is not None else 0.0

    def table(self, metric: MetricInfo) -> Table:
        """Get the table that holds `metric`."""
        return self.gate if metric.table == "gate" else self.regression

    def has_values(self, metric: MetricInfo, version: str) -> bool:
        """Check whether `version` has a value of `metric` for any item."""
        values = self.table(metric).scores.get(metric.name, {}).get(version, ())
        return any(value is not None for value in values)

    @property
    def challengers(self) -> tuple[VersionCard, ...]:
        """Cards that ask to go live."""
        return tuple(card for card in self.versions if card.role == "challenger")


def read_scorecard(path: Path) -> Scorecard:
    """Load a stored scorecard (`scorecard.json` or its folder)."""
    file = path / "scorecard.json" if path.is_dir() else path
    return Scorecard.model_validate_json(file.read_bytes())
