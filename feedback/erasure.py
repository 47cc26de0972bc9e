"""Erase a person from everything that ingest and snapshots made: store, lake, index, snapshots.

What belongs to a person: the interactions they had, all feedback on these, and all they said of other people's answers.
Examples made with the help of their words go too; what others said of the same answers is taken in anew by the next
ingest. The store comes last, with the record that stays: whoever is interrupted runs it again and finds all of it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from feedback.examples import Example
from feedback.index.ingest_index import IngestIndex
from feedback.lake.lake import Lake, example_of
from feedback.lake.maintenance import drop_history, erase
from feedback.lake.quarantine import quarantine_releases
from feedback.redaction.redact import Finder, Redactor
from feedback.snapshots.gate_items import item_id_of
from feedback.sources.landing import reject_id, source_rejects
from feedback.store.store import Store, feedback, feedback_ready, interactions, requeue
from feedback.store.tombstones import Tombstone, name_hash, write_tombstone
from infra.artifact import atomic_write, digest_file
from infra.database.connect import begin_write

_CHUNK = 400
_SEGMENT = re.compile(r"""[^\s"'\\<>&](?:[^\n\r\t"'\\<>&]{18,78})[^\s"'\\<>&]""")
_REDACTED = re.compile(r"\[[A-Z_]+_\d+\]")
_GONE = "[forgotten]"
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_PHRASE = 10
"""Shortest text, in characters, that is looked for as a whole, if it has several words: "yes" is nobody's."""
TOMBSTONE = "forgotten.json"


@dataclass
class Belongings:
    """Everything by which a person can be found."""

    tenant: str
    person: str
    """Pseudonym."""
    interactions: set[str] = field(default_factory=set)
    """Interactions they had."""
    events: set[str] = field(default_factory=set)
    """Feedback of theirs, and on their interactions."""
    subjects: set[str] = field(default_factory=set)
    """What lake rows are made from: these interactions, others that they spoke of, their documents."""
    item_ids: set[str] = field(default_factory=set)
    """Gate items made of any of these."""
    rejects: set[str] = field(default_factory=set)
    """Quarantine rows of rows of files that could not be read and name them."""
    needles: set[str] = field(default_factory=set)
    """Stretches of text that only they, or people on their conversations, wrote."""
    phrases: set[str] = field(default_factory=set)
    """Such texts as are too short, or too full of quotes, to have a stretch that looks the same wherever it stands, but
    too long to be anybody's. They are looked for only where people's texts stand: in rows, examples and pages."""
    short: int = 0
    """How many of their texts have no such stretch."""
    elsewhere: bool = False
    """Whether the same id is known in another tenant too: there the pseudonym says nothing of this one's rows."""

    @property
    def names(self) -> list[str]:
        """What a file may hold in no place, for a search by bytes."""
        return [*([] if self.elsewhere else [self.person]), *self.needles]

    def owns(self, row: Any) -> bool:
        """Whether a row, as JSON, is one of theirs or was made with their words."""
        if not isinstance(row, dict) or row.get("tenant", self.tenant) != self.tenant:
            return False
        events = row.get("source_events") or row.get("events") or ()
        return (
            row.get("item_id") in self.item_ids
            or self._speaks(row.get("subject"))
            or row.get("interaction_id") in self.interactions
            or self.person in (row.get("user"), row.get("actor"))
            or bool(self.events.intersection(events))
        )

    def _speaks(self, subject: Any) -> bool:
        """Whether a subject is an interaction, document or orphan of theirs, not just one that they spoke of: what
        others made of that before is not made with their words."""
        event = subject.removeprefix("document/").rpartition("?")[2] if isinstance(subject, str) else ""
        return subject in self.interactions or event in self.events


def find_belongings(
    store: Store, lake: Lake, tenant: str, person: str, *, finder: Finder | None = None, raw: str | None = None
) -> Belongings:
    """All that belongs to a person (by pseudonym) in store and lake.

    Args:
        raw: the id as applications send it, if known: rows of files that could not be read hold it as it is.
        finder: what ingest looks for personal data with; None: our own patterns.
    """
    found = Belongings(tenant, person)
    texts: list[str] = []
    with store.engine.connect() as connection:
        mine = select(interactions.c.interaction_id, interactions.c.body).where(
            interactions.c.tenant == tenant, interactions.c.user == person
        )
        for interaction_id, body in connection.execute(mine):
            found.interactions.add(interaction_id)
            texts += _texts(json.loads(body))
        said = [
            connection.execute(
                select(feedback.c.event_id, feedback.c.interaction_id, feedback.c.body).where(
                    feedback.c.tenant == tenant, condition
                )
            ).all()
            for condition in [feedback.c.actor == person, *_among(feedback.c.interaction_id, found.interactions)]
        ]
    for event_id, about, body in (row for rows in said for row in rows):
        found.events.add(event_id)
        found.subjects |= {about or event_id, event_id, f"document/{event_id}", f"{about}?{event_id}"}
        texts += _texts(json.loads(body))
    found.subjects |= found.interactions
    for example in _examples(lake, found):
        if found.owns({"subject": example.subject, "source_events": example.source_events}):
            found.item_ids.add(item_id_of(example))
        if example.subject in found.interactions or found.events.issuperset(example.source_events):
            texts += [example.completion or "", example.chosen or "", example.rejected or "", example.reference or ""]
            texts += [example.text or "", *(m.content for m in example.messages if m.role != "system")]
    texts += _held_texts(lake, found)
    lying = _held_rejects(lake, tenant)
    with store.engine.connect() as connection:
        for row in connection.execute(select(source_rejects).where(_names_them(tenant, person, raw))):
            if row.raw != _GONE or lying.get(reject_id(row), _GONE) != _GONE:
                found.rejects.add(reject_id(row))
                texts.append(str(row.raw))
    found.needles = {needle for text in texts for needle in [*needles_of(text), *_needles_beside(text, finder)]}
    short = {text.strip() for text in texts if text.strip() and not needles_of(text)}
    found.short = len(short)
    found.phrases = {text for text in short if len(text) >= _PHRASE and " " in text}
    leave_shared_texts(store, found)
    return found


def join_belongings(stores: Sequence[Store], every: Sequence[Belongings]) -> Belongings:
    """What several stores hold of the same person together; what others in any of them said is theirs."""
    found = every[0]
    for more in every[1:]:
        for name in ("interactions", "events", "subjects", "item_ids", "rejects", "needles", "phrases"):
            getattr(found, name).update(getattr(more, name))
        found.short += more.short
        found.elsewhere |= more.elsewhere
    for store in stores if len(every) > 1 else ():
        leave_shared_texts(store, found)
    return found


def needles_of(said: str) -> list[str]:
    """The longest stretch of a text that looks the same in JSON, HTML and plain files; none for short texts."""
    stretches = sorted(_SEGMENT.findall(said), key=len)
    return [stretches[-1]] if stretches else []


def _needles_beside(said: str, finder: Finder | None) -> list[str]:
    """The longest stretch that the redacted copies of a text have in common with it, however these are numbered."""
    return needles_of(_REDACTED.sub("\n", Redactor(find=finder).text(said)))


def _held_texts(lake: Lake, found: Belongings) -> list[str]:
    """What quarantined rows hold of the person's words: made clean as ingest does it, so perhaps unlike the store's."""
    import polars as pl

    rows = lake.scan("quarantine")
    if rows is None:
        return []
    texts: list[str] = []
    mine = (pl.col("tenant") == found.tenant) & pl.col("subject").is_in(sorted(found.subjects))
    for row in rows.filter(mine & (pl.col("step") != "source")).collect().iter_rows(named=True):
        content = json.loads(row["content"])
        if row["subject"] in found.interactions:
            texts += _texts(content)
        elif found.events.issuperset(row["events"]):
            texts += _texts(content.get("feedback"))
    return texts


def erase_from_lake(lake: Lake, found: Belongings) -> dict[str, int]:
    """Rows removed from the lake's tables, all versions, and from the index. Call with the lake locked."""
    subjects = sorted(found.subjects)
    removed = {f"lake {table}": rows for table, rows in erase(lake, found.tenant, "subject", subjects).items()}
    rejected = _rejected(lake, found)
    removed["lake quarantine"] = removed.get("lake quarantine", 0) + erase(lake, found.tenant, "row_id", rejected).get(
        "quarantine", 0
    )
    drop_history(lake)
    index = IngestIndex(lake.index_path)
    try:
        removed["index of the past"] = index.forget(found.tenant, subjects, found.person, sorted(found.events))
    finally:
        index.close()
    return removed


def erase_data_docs(lake: Lake, found: Belongings) -> int:
    """Data Docs removed: those of every batch that dealt with something of theirs, whatever stands in them."""
    import polars as pl

    fates = lake.scan("fates")
    if fates is None:
        return 0
    mine = fates.filter((pl.col("tenant") == found.tenant) & pl.col("subject").is_in(sorted(found.subjects)))
    folders = [lake.docs_dir / f"{batch:08d}" for batch in mine.collect()["batch"].unique()]
    there = [folder for folder in folders if folder.exists()]
    for folder in there:
        shutil.rmtree(folder)
    return len(there)


def erase_from_snapshots(snapshots_dir: Path, found: Belongings) -> dict[str, dict[str, int]]:
    """Rows removed from each snapshot that held any, by part. The manifest stays; a tombstone says what is missing."""
    held: dict[str, dict[str, int]] = {}
    for folder in sorted(snapshots_dir.glob("s-*")):
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["identity"]["tenant"] != found.tenant:
            continue
        removed: dict[str, int] = {}
        for file in sorted(folder.rglob("*.jsonl")):
            lines = [line for line in file.read_text().splitlines(keepends=True) if line.strip()]
            kept = [line for line in lines if not found.owns(json.loads(line))]
            if len(kept) < len(lines):
                part = file.relative_to(folder).as_posix()
                removed[part] = len(lines) - len(kept)
                _note(folder, name_hash(found.tenant, found.person), part, removed[part], digest_file(file))
                atomic_write(file, "".join(kept))
        if removed:
            held[folder.name] = removed
    return held


def digests_of(snapshot: Path) -> dict[str, set[str]]:
    """By part, every digest that its file had since it was cut: stages name the bytes that they were trained on."""
    digests = {p: {d} for p, d in json.loads((snapshot / "manifest.json").read_text())["identity"]["files"].items()}
    stone = snapshot / TOMBSTONE
    if stone.exists():
        for part, before in json.loads(stone.read_text()).get("digests", {}).items():
            digests.setdefault(part, set()).update(before)
        for part in digests:
            if (snapshot / part).exists():
                digests[part].add(digest_file(snapshot / part))
    return digests


def erased_rows(snapshot: Path, mark: str | None = None) -> dict[str, int]:
    """Rows that were taken out of a snapshot, by part: of the person with that mark, or of everybody."""
    stone = snapshot / TOMBSTONE
    persons: dict[str, dict[str, int]] = json.loads(stone.read_text())["persons"] if stone.exists() else {}
    counts: dict[str, int] = {}
    for person, parts in persons.items():
        if mark in (None, person):
            counts = {part: counts.get(part, 0) + parts.get(part, 0) for part in {*counts, *parts}}
    return counts


def _note(snapshot: Path, mark: str, part: str, rows: int, digest: str) -> None:
    """Remember what is about to be taken, and what the file was before."""
    stone = snapshot / TOMBSTONE
    said: dict[str, Any] = json.loads(stone.read_text()) if stone.exists() else {}
    mine = said.setdefault("persons", {}).setdefault(mark, {})
    mine[part] = mine.get(part, 0) + rows
    before = said.setdefault("digests", {}).setdefault(part, [])
    before += [digest] if digest not in before else []
    atomic_write(stone, json.dumps(said, indent=2) + "\n")


def erase_from_store(
    store: Store, found: Belongings, stone: Tombstone, raw: str | None, again: Sequence[str] = ()
) -> dict[str, int]:
    """Delete the rows and write the record in one transaction; others' words on the same answers get another turn.

    So do the events in `again`.
    """
    removed: dict[str, int] = {}
    with begin_write(store.engine) as connection:
        theirs = or_(feedback.c.actor == found.person, feedback.c.event_id.in_(sorted(found.events)[:_CHUNK]))
        seqs = list(connection.scalars(select(feedback.c.seq).where(feedback.c.tenant == found.tenant, theirs)))
        rest = sorted(found.events)[_CHUNK:]
        for start in range(0, len(rest), _CHUNK):
            more = feedback.c.event_id.in_(rest[start : start + _CHUNK])
            seqs += list(connection.scalars(select(feedback.c.seq).where(feedback.c.tenant == found.tenant, more)))
        for start in range(0, len(seqs), _CHUNK):
            chunk = seqs[start : start + _CHUNK]
            connection.execute(delete(feedback_ready).where(feedback_ready.c.feedback_seq.in_(chunk)))
            connection.execute(delete(feedback).where(feedback.c.seq.in_(chunk)))
        removed["store feedback"] = len(seqs)
        mine = (interactions.c.tenant == found.tenant) & (interactions.c.user == found.person)
        removed["store interactions"] = connection.execute(delete(interactions).where(mine)).rowcount
        for start in range(0, len(found.events), _CHUNK):
            chunk_of = sorted(found.events)[start : start + _CHUNK]
            held = (quarantine_releases.c.tenant == found.tenant) & quarantine_releases.c.event_id.in_(chunk_of)
            connection.execute(delete(quarantine_releases).where(held))
        barred, removed["rejected rows"] = _scrub_rejects(connection, found, raw)
        requeue(connection, found.tenant, again)
        others = sorted(found.subjects - found.interactions)
        for start in range(0, len(others), _CHUNK):
            about = (feedback.c.tenant == found.tenant) & feedback.c.interaction_id.in_(others[start : start + _CHUNK])
            requeue(connection, found.tenant, list(connection.scalars(select(feedback.c.event_id).where(about))))
        total = {**stone.removed, **removed}
        write_tombstone(
            connection,
            stone.model_copy(update={"removed": total}),
            sorted(found.interactions),
            sorted(found.events),
            barred,
        )
    if store.engine.dialect.name == "sqlite":
        with store.engine.connect() as connection:  # deleted rows stay in free pages until the file is rewritten
            raw_connection = connection.connection.dbapi_connection
            assert raw_connection is not None
            raw_connection.execute("VACUUM")
            raw_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def _scrub_rejects(connection: Connection, found: Belongings, raw: str | None) -> tuple[list[str], int]:
    """Rows of files that could not be read may name a person all the same: their text is taken away. Returns it, to
    bar it, and how many rows held it."""
    holds = _names_them(found.tenant, found.person, raw) & (source_rejects.c.raw != _GONE)
    said = [str(text) for text in connection.scalars(select(source_rejects.c.raw).where(holds))]
    return said, connection.execute(update(source_rejects).where(holds).values(raw=_GONE, detail=_GONE)).rowcount


def _names_them(tenant: str, person: str, raw: str | None) -> ColumnElement[bool]:
    """Rows of files that could not be read and name the person, or did: what was scrubbed may lie in the lake still.

    A short id is looked for as a whole value only, for it stands in too many words; the name of a role not at all.
    """
    long = raw is not None and (len(raw) >= 8 or "@" in raw)
    names = [person, *([raw if long else f'"{raw}"'] if raw and raw not in _ROLES else [])]
    named = [source_rejects.c.raw.contains(name, autoescape=True) for name in names]
    return (source_rejects.c.tenant == tenant) & or_(source_rejects.c.raw == _GONE, *named)


def _rejected(lake: Lake, found: Belongings) -> list[str]:
    """Quarantined rows of unreadable files that are theirs, or hold one of the needles or the pseudonym."""
    wanted = [found.person, *found.needles]
    held = _held_rejects(lake, found.tenant).items()
    return [row for row, said in held if row in found.rejects or any(needle in said for needle in wanted)]


def _held_rejects(lake: Lake, tenant: str) -> dict[str, str]:
    """What quarantined rows of unreadable files hold, by row id."""
    import polars as pl

    rows = lake.scan("quarantine")
    if rows is None:
        return {}
    frame = rows.filter((pl.col("tenant") == tenant) & (pl.col("step") == "source")).collect()
    return dict(zip(map(str, frame["row_id"]), map(str, frame["content"]), strict=True))


def _examples(lake: Lake, found: Belongings) -> Iterator[Example]:
    """Every example that was ever made of the person's subjects."""
    import polars as pl

    rows = lake.scan("accepted")
    if rows is None:
        return
    mine = (pl.col("tenant") == found.tenant) & pl.col("subject").is_in(sorted(found.subjects))
    for row in rows.filter(mine).collect().iter_rows(named=True):
        yield example_of(row)


def leave_shared_texts(store: Store, found: Belongings) -> None:
    """Take out needles and phrases that stand in other people's rows as well: those are theirs. Note whether another
    tenant knows the same id."""
    shared: set[str] = set()
    with store.engine.connect() as connection:
        for table, own in ((interactions, interactions.c.user), (feedback, feedback.c.actor)):
            names = interactions.c.interaction_id if table is interactions else feedback.c.event_id
            mine = found.interactions if table is interactions else found.events
            others = or_(own.is_(None), own != found.person, table.c.tenant != found.tenant)
            for name, tenant, whose, body in connection.execute(
                select(names, table.c.tenant, own, table.c.body).where(others)
            ):
                if tenant == found.tenant and name in mine:
                    continue
                found.elsewhere |= whose == found.person
                texts = _texts(json.loads(body))
                said = "\n".join(texts)
                shared |= {needle for needle in found.needles if needle in said}
                shared |= found.phrases.intersection(map(str.strip, texts))
    found.needles -= shared
    found.phrases -= shared


def _among(column: Any, names: set[str]) -> list[Any]:
    ordered = sorted(names)
    return [column.in_(ordered[start : start + _CHUNK]) for start in range(0, len(ordered), _CHUNK)]


def _texts(value: Any) -> list[str]:
    """What somebody wrote, in an event's JSON."""
    if isinstance(value, dict):
        # Pseudonyms are no words: an agent who spoke of this person's answers only is somebody else all the same.
        skipped = {"role", "kind", "tenant", "version", "interaction_id", "event_id", "source", "created_at", "task"}
        skipped |= {"actor", "user", "routing", "sampling", "finish_reason", "grader"}
        if value.get("role") == "system":
            return []
        return [text for key, inner in value.items() if key not in skipped for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []
