"""Look up a tenant's answers, feedback, examples, snapshots, versions and releases, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, func, select

from deploy.ledger.ledger import Entry, history
from deploy.nights.record import NightRecord, read_records
from deploy.versions.provenance import trained_on
from feedback.erasure.snapshots import digests_of
from feedback.events import Feedback
from feedback.examples import Example
from feedback.lake.frames import EventOutcome, example_of
from feedback.lake.lake import lake_of
from feedback.snapshots.gate_items import item_id_of
from feedback.snapshots.layout import GATE_FILES, SHOWN, TRAIN, VALIDATION, read_manifest
from feedback.store.store import Store, feedback, interactions
from infra.settings import Places

if TYPE_CHECKING:
    import polars as pl

PARTS = (TRAIN, VALIDATION, *GATE_FILES.values(), SHOWN)
"""Files of a snapshot that hold rows."""


@dataclass(frozen=True)
class AcceptedExample:
    """An example, and the batch that took it in."""

    example: Example
    batch: int


@dataclass(frozen=True)
class IngestedEvent:
    """How a feedback event ended, and in which batch."""

    outcome: EventOutcome
    batch: int


@dataclass(frozen=True)
class Answers:
    """Answers that users got."""

    count: int
    latest: tuple[str, ...]
    """Ids of the last three."""


class Lookup:
    """All that is kept of one tenant, to be asked by id."""

    def __init__(self, places: Places, store: Store, tenant: str) -> None:
        self.places, self.store, self.tenant = places, store, tenant
        self.lake = lake_of(places)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The tenant's ledger, oldest entry first."""
        return tuple(history(self.store.database, self.tenant))

    @cached_property
    def nights(self) -> tuple[NightRecord, ...]:
        """Records of the tenant's nights, newest first."""
        return tuple(read_records(self.places.nights_dir, self.tenant))

    # --- answers and feedback --------------------------------------------------------------------------------------

    def answers_of(self, version: str) -> Answers:
        """Count the answers that a version gave."""
        return self._answers(interactions.c.version == version)

    def answers_under(self, release: int) -> Answers:
        """Count the answers that were given while this entry of the ledger was in force."""
        return self._answers(interactions.c.release_seq == release)

    def _answers(self, which: ColumnElement[bool]) -> Answers:
        mine = (interactions.c.tenant == self.tenant) & which
        with self.store.database.connect() as connection:
            count = connection.execute(select(func.count()).select_from(interactions).where(mine)).scalar_one()
            latest = connection.scalars(
                select(interactions.c.interaction_id).where(mine).order_by(interactions.c.seq.desc()).limit(3)
            ).all()
        return Answers(count=count, latest=tuple(latest))

    def event(self, name: str) -> Feedback | None:
        """Load a feedback event; None where there is none of that id."""
        mine = (feedback.c.tenant == self.tenant) & (feedback.c.event_id == name)
        with self.store.database.connect() as connection:
            body = connection.execute(select(feedback.c.body).where(mine)).scalar()
        return None if body is None else Feedback.model_validate_json(body)

    def events_about(self, interaction: str) -> list[str]:
        """Ids of the feedback on an answer, in order."""
        mine = (feedback.c.tenant == self.tenant) & (feedback.c.interaction_id == interaction)
        with self.store.database.connect() as connection:
            return list(connection.scalars(select(feedback.c.event_id).where(mine).order_by(feedback.c.seq)))

    # --- the lake --------------------------------------------------------------------------------------------------

    def outcomes(self, where: pl.Expr, *, limit: int | None = None) -> list[IngestedEvent]:
        """Outcomes of events for which a condition holds: the first of them, or all by batch."""
        rows = self._rows("fates", where, limit, "batch")
        if rows is None:
            return []
        return [
            IngestedEvent(EventOutcome.model_validate({k: v for k, v in row.items() if k != "batch"}), row["batch"])
            for row in rows.iter_rows(named=True)
        ]

    def outcome_of(self, event: str) -> EventOutcome | None:
        """How an event ended last; None where it was not ingested yet."""
        import polars as pl

        outcomes = self.outcomes(pl.col("event_id") == event)
        return outcomes[-1].outcome if outcomes else None

    def merged_events(self, example: str) -> list[str]:
        """Events that an example stands for though it was not made from them, by their latest outcomes."""
        import polars as pl

        rows = self.lake.scan("fates")
        if rows is None:
            return []
        mine = rows.filter(pl.col("tenant") == self.tenant)
        into = pl.col("examples").list.contains(example)
        ever = mine.filter(into).select("event_id").unique()
        last = mine.join(ever, on="event_id", how="semi").sort("batch").group_by("event_id", maintain_order=True).last()
        return list(last.filter(into & (pl.col("status") == "merged")).select("event_id").collect()["event_id"])

    def accepted(self, where: pl.Expr, *, limit: int | None = None) -> list[AcceptedExample]:
        """Accepted examples for which a condition holds, of every batch: the first of them, or all by batch and id."""
        rows = self._rows("accepted", where, limit, "batch", "example_id")
        if rows is None:
            return []
        return [AcceptedExample(example_of(row), row["batch"]) for row in rows.iter_rows(named=True)]

    def examples(self, column: str, value: str) -> list[Example]:
        """Accepted examples with this value in a column, each as its latest batch has it."""
        import polars as pl

        return self._latest(pl.col(column) == value)

    def examples_of_event(self, event: str) -> list[Example]:
        """Examples that were made of an event, or that its own were merged into."""
        import polars as pl

        made_of = pl.col("source_events").list.contains(event)
        return self._latest(made_of | pl.col("example_id").is_in(list(self.merged_into(event))))

    def merged_into(self, event: str) -> tuple[str, ...]:
        """Examples that stand for those of an event, by its latest outcome."""
        last = self.outcome_of(event)
        return last.examples if last is not None and last.status == "merged" else ()

    def _latest(self, where: pl.Expr) -> list[Example]:
        return list({row.example.example_id: row.example for row in self.accepted(where)}.values())

    def _rows(self, table: str, where: pl.Expr, limit: int | None, *order: str) -> pl.DataFrame | None:
        import polars as pl

        rows = self.lake.scan(table)
        if rows is None:
            return None
        mine = rows.filter((pl.col("tenant") == self.tenant) & where)
        return (mine.sort(*order) if limit is None else mine.head(limit)).collect()

    # --- snapshots and versions ------------------------------------------------------------------------------------

    def snapshots(self) -> list[Path]:
        """Folders of the tenant's snapshots, by name."""
        return [
            folder
            for folder in sorted(self.places.snapshots_dir.glob("s-*"))
            if read_manifest(folder).identity.tenant == self.tenant
        ]

    def versions_on(self, snapshot: Path) -> list[str]:
        """Versions that were trained on a snapshot."""
        return trained_on(self.places, _digests(snapshot))

    def snapshots_of(self, version: str) -> list[str]:
        """Names of the snapshots that a version was trained on."""
        return [folder.name for folder in self.snapshots() if version in self.versions_on(folder)]

    def entries_of(self, version: str) -> list[Entry]:
        """Entries of the ledger about a version."""
        return [entry for entry in self.entries if entry.version == version]


def parts_with(folder: Path, example: Example) -> Iterator[str]:
    """Files of a snapshot that hold an example, or the gate item made of it."""
    needles = (f'"example_id":"{example.example_id}"', f'"item_id":"{item_id_of(example)}"')
    for part in PARTS:
        if (folder / part).exists():
            with (folder / part).open(encoding="utf-8") as rows:
                if any(needle in row for row in rows for needle in needles):
                    yield part


def _digests(snapshot: Path) -> set[str]:
    digests = digests_of(snapshot)
    return digests.get(TRAIN, set()) | digests.get(VALIDATION, set())
