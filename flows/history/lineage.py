"""From anything to what it was made of, and to what was made of it: answer, feedback, example, snapshot, version.

ratchet lineage ANYTHING    (a number is a line of the ledger)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select

from deploy.ledger.ledger import Entry, history
from deploy.versions.provenance import trained_on
from deploy.versions.versions import list_versions
from feedback.erasure.snapshots import digests_of
from feedback.lake.frames import example_of
from feedback.lake.lake import lake_of
from feedback.snapshots.gate_items import item_id_of
from feedback.snapshots.layout import GATE_FILES, SHOWN, TRAIN, VALIDATION, read_manifest
from feedback.store.store import Store, feedback, interactions
from infra.artifact import read_record
from infra.errors import NotFound
from infra.settings import Config, Places


class Link(Config):
    """One thing, and why it is named."""

    kind: str
    """answer, feedback, example, snapshot, stage, version or release."""
    name: str
    """Its id."""
    note: str = ""
    """What it has to do with what was asked."""


class Lineage(Config):
    """What was asked for, what it came from, and what came of it; nearest first."""

    kind: str
    """What kind of thing the name is."""
    name: str
    """Its whole id."""
    made_of: tuple[Link, ...] = ()
    """Towards the people who said something."""
    became: tuple[Link, ...] = ()
    """Towards the answers that users got."""


class World:
    """Everything a tenant's things are looked up in."""

    def __init__(self, places: Places, store: Store, tenant: str) -> None:
        self.places, self.store, self.tenant = places, store, tenant
        self.lake = lake_of(places)

    # --- snapshots and versions ------------------------------------------------------------------------------------

    def snapshots(self) -> Iterator[tuple[str, Path, dict[str, set[str]]]]:
        """(name, folder, digests that each file had) of the tenant's snapshots."""
        for folder in sorted(self.places.snapshots_dir.glob("s-*")):
            if read_manifest(folder).identity.tenant == self.tenant:
                yield folder.name, folder, digests_of(folder)

    def versions_of(self, snapshot: str) -> list[Link]:
        """Versions trained on a snapshot, each with the releases that name it."""
        files = next((files for name, _, files in self.snapshots() if name == snapshot), {})
        digests = files.get(TRAIN, set()) | files.get(VALIDATION, set())
        return [link for version in trained_on(self.places, digests) for link in self.uses_of(version)]

    def uses_of(self, version: str) -> list[Link]:
        """A version, its lines of the ledger, and how many answers it gave."""
        links = [Link(kind="version", name=version, note="trained on it")]
        for line in history(self.store.database, self.tenant):
            if line.version == version:
                links.append(
                    Link(kind="release", name=str(line.seq), note=f"{line.action} {version}: {line.reason[:120]}")
                )
        return [*links, *self.answers_of(version)]

    def answers_of(self, version: str) -> list[Link]:
        """How many answers a version gave, and the latest of them."""
        return self._answers(interactions.c.version == version)

    def answers_under(self, release: int) -> list[Link]:
        """How many answers were given while this line of the ledger was in force, and the latest of them."""
        return self._answers(interactions.c.release_seq == release)

    def _answers(self, which: ColumnElement[bool]) -> list[Link]:
        mine = (interactions.c.tenant == self.tenant) & which
        with self.store.database.connect() as connection:
            count = connection.execute(select(func.count()).select_from(interactions).where(mine)).scalar_one()
            latest = connection.execute(
                select(interactions.c.interaction_id).where(mine).order_by(interactions.c.seq.desc()).limit(3)
            ).all()
        names = ", ".join(row[0] for row in latest)
        return [Link(kind="answer", name=f"{count} answers", note=f"the latest: {names}")] if count else []

    def snapshots_of(self, version: str) -> list[Link]:
        """What a version was trained on."""
        return [
            Link(kind="snapshot", name=name, note=f"{version} was trained on it")
            for name, _, files in self.snapshots()
            if version in trained_on(self.places, files[TRAIN] | files[VALIDATION])
        ]

    # --- rows ------------------------------------------------------------------------------------------------------

    def rows_in(self, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """(part, row) of a snapshot."""
        for part in (TRAIN, VALIDATION, *GATE_FILES.values(), SHOWN):
            if (folder / part).exists():
                for line in (folder / part).read_text().splitlines():
                    if line:
                        yield part, json.loads(line)

    def holding(self, row: dict[str, Any]) -> list[Link]:
        """Snapshots that hold an accepted row, as a lesson or as the gate item made of it, and what became of them."""
        links = []
        names = {row["example_id"], item_id_of(example_of(row))}
        for name, folder, _ in self.snapshots():
            parts = {
                part for part, held in self.rows_in(folder) if names & {held.get("example_id"), held.get("item_id")}
            }
            if parts:
                links.append(Link(kind="snapshot", name=name, note=f"in {', '.join(sorted(parts))}"))
                if parts & {TRAIN, VALIDATION}:
                    links += self.versions_of(name)
        return links

    def examples(self, column: str, value: str) -> list[dict[str, Any]]:
        """Accepted rows, of every batch, with this value; of an event also those that its own were merged into."""
        import polars as pl

        rows = self.lake.scan("accepted")
        if rows is None:
            return []
        same = pl.col(column) == value
        if column == "event":
            same = pl.col("source_events").list.contains(value) | pl.col("example_id").is_in(self.merged_into(value))
        frame = rows.filter((pl.col("tenant") == self.tenant) & same).sort("batch", "example_id").collect()
        return list({row["example_id"]: row for row in frame.iter_rows(named=True)}.values())

    def merged_into(self, event: str) -> list[str]:
        """Examples that stand for those of an event, as its latest fate has it."""
        last = self._fate(event)
        return list(last["examples"]) if last is not None and last["status"] == "merged" else []

    def merged_events(self, example: str) -> list[str]:
        """Events that an example stands for though it was not made from them, as their latest fates have it."""
        import polars as pl

        rows = self.lake.scan("fates")
        if rows is None:
            return []
        mine = rows.filter(pl.col("tenant") == self.tenant)
        into = pl.col("examples").list.contains(example)
        ever = mine.filter(into).select("event_id").unique()
        last = mine.join(ever, on="event_id", how="semi").sort("batch").group_by("event_id", maintain_order=True).last()
        return list(last.filter(into & (pl.col("status") == "merged")).select("event_id").collect()["event_id"])

    def fate(self, event: str) -> str:
        """Who said it, and how it ended."""
        mine = (feedback.c.tenant == self.tenant) & (feedback.c.event_id == event)
        with self.store.database.connect() as connection:
            said = connection.execute(select(feedback.c.kind, feedback.c.actor, feedback.c.trusted).where(mine)).first()
        who = f"{said.kind} by {said.actor}{' (trusted)' if said.trusted else ''}: " if said is not None else ""
        last = self._fate(event)
        if last is None:
            return f"{who}not ingested yet"
        into = f", into {', '.join(names)}" if (names := self.merged_into(event)) else ""
        return f"{who}{last['status']} ({last['code']}){into}"

    def _fate(self, event: str) -> dict[str, Any] | None:
        import polars as pl

        rows = self.lake.scan("fates")
        if rows is None:
            return None
        frame = rows.filter((pl.col("tenant") == self.tenant) & (pl.col("event_id") == event)).sort("batch").collect()
        return frame.row(-1, named=True) if frame.height else None

    def said_of(self, interaction: str) -> list[str]:
        """Ids of the feedback on an answer."""
        with self.store.database.connect() as connection:
            about = (feedback.c.tenant == self.tenant) & (feedback.c.interaction_id == interaction)
            return list(connection.scalars(select(feedback.c.event_id).where(about).order_by(feedback.c.seq)))


def lineage(places: Places, store: Store, name: str, *, tenant: str) -> Lineage:
    """What `name` was made of, and what became of it.

    Args:
        name: id of an answer (interaction), a feedback event, an example (x-...), a snapshot (s-...) or a version, or
            the number of a line of the ledger.

    Raises:
        NotFound: nothing of that name is here.
    """
    world = World(places, store, tenant)
    if name in [snapshot for snapshot, _, _ in world.snapshots()]:
        return _of_snapshot(world, name)
    if name in list_versions(places.versions_dir):
        return _of_version(world, name)
    rows = world.examples("example_id", name) if name.startswith("x-") else []
    if rows:
        return _of_example(world, rows[-1])
    with store.database.connect() as connection:
        mine = (feedback.c.tenant == tenant) & (feedback.c.event_id == name)
        said = connection.execute(select(feedback.c.interaction_id, feedback.c.kind).where(mine)).first()
    if said is not None:
        return _of_feedback(world, name, said[0], said[1])
    answer = store.interaction(tenant, name)
    if answer is not None:
        return _of_answer(world, name, answer.version)
    line = next((e for e in history(store.database, tenant) if name.isdecimal() and e.seq == int(name)), None)
    if line is not None:
        return _of_release(world, line)
    raise NotFound(
        f"nothing is called {name!r} in tenant {tenant!r}; expected the id of an answer, a feedback event, an example "
        "(x-...), a snapshot (s-...), a version, or the number of a release in the ledger"
    )


def _of_answer(world: World, name: str, version: str) -> Lineage:
    made_of = [Link(kind="version", name=version, note="gave the answer"), *world.snapshots_of(version)]
    became = []
    for event in world.said_of(name):
        became.append(Link(kind="feedback", name=event, note=world.fate(event)))
    for row in world.examples("subject", name):
        became.append(Link(kind="example", name=row["example_id"], note=f"{row['shape']}: {row['reason']}"))
        became += world.holding(row)
    return Lineage(kind="answer", name=name, made_of=tuple(made_of), became=tuple(_once(became)))


def _of_feedback(world: World, name: str, about: str | None, kind: str) -> Lineage:
    made_of = [Link(kind="answer", name=about, note=f"the {kind} is about it")] if about else []
    became: list[Link] = []
    for row in world.examples("event", name):
        note = f"{row['shape']}: {row['reason']}" if name in row["source_events"] else f"{row['shape']}: merged into it"
        became.append(Link(kind="example", name=row["example_id"], note=note))
        became += world.holding(row)
    if not became:
        made_of.append(Link(kind="feedback", name=name, note=world.fate(name)))
    return Lineage(kind="feedback", name=name, made_of=tuple(made_of), became=tuple(_once(became)))


def _of_example(world: World, row: dict[str, Any]) -> Lineage:
    made_of = [Link(kind="feedback", name=event, note=world.fate(event)) for event in row["source_events"]]
    merged = [event for event in world.merged_events(row["example_id"]) if event not in row["source_events"]]
    made_of += [Link(kind="feedback", name=event, note="merged into it") for event in merged]
    if row["shape"] != "document":
        made_of.append(Link(kind="answer", name=row["subject"], note=f"answered by {row['version']}"))
        if row["version"]:
            made_of += world.snapshots_of(row["version"])
    became = world.holding(row)
    return Lineage(kind="example", name=row["example_id"], made_of=tuple(made_of), became=tuple(_once(became)))


def _of_snapshot(world: World, name: str) -> Lineage:
    folder = world.places.snapshots_dir / name
    made_of = []
    for part in (TRAIN, VALIDATION):
        rows = [row for where, row in world.rows_in(folder) if where == part]
        for row in rows[:5]:
            note = f"{part}: {row['shape']}, from {', '.join(row['source_events'])}"
            made_of.append(Link(kind="example", name=row["example_id"], note=note))
        if len(rows) > 5:
            made_of.append(
                Link(kind="example", name=f"{len(rows) - 5} more", note=f"{part}; `ratchet data show {name}`")
            )
    return Lineage(kind="snapshot", name=name, made_of=tuple(made_of), became=tuple(_once(world.versions_of(name))))


def _of_version(world: World, name: str) -> Lineage:
    record = read_record(world.places.versions_dir / name)
    assert record is not None
    made_of = [Link(kind="stage", name=record.key, note=record.name), *world.snapshots_of(name)]
    return Lineage(kind="version", name=name, made_of=tuple(made_of), became=tuple(world.uses_of(name)[1:]))


def _of_release(world: World, line: Entry) -> Lineage:
    made_of = [Link(kind="version", name=line.version, note=f"{line.action}: {line.reason[:120]}")]
    made_of += world.snapshots_of(line.version)
    return Lineage(
        kind="release", name=str(line.seq), made_of=tuple(made_of), became=tuple(world.answers_under(line.seq))
    )


def _once(links: list[Link]) -> list[Link]:
    return list(dict.fromkeys(links))
