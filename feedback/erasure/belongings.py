"""Find everything that belongs to a person in store and lake, so that it can be erased there and in snapshots.

What belongs to a person: the interactions they had, all feedback on these, and all they said of other people's answers.
Examples made with the help of their words go too; what others said of the same answers is taken in anew by the next
ingest. The store is erased last, with the record that stays: whoever is interrupted runs it again and finds all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue
from sqlalchemy import ColumnElement, or_, select

from feedback.erasure.rejects import GONE, names_person, quarantined_rejects
from feedback.examples import Example
from feedback.lake.frames import example_of
from feedback.lake.lake import Lake
from feedback.redaction.patterns import Finder
from feedback.redaction.redact import Redactor
from feedback.snapshots.gate_items import item_id_of
from feedback.sources.landing import RejectedRow, source_rejects
from feedback.store.store import Store, feedback, interactions

_CHUNK = 400
_SEGMENT = re.compile(r"""[^\s"'\\<>&](?:[^\n\r\t"'\\<>&]{18,78})[^\s"'\\<>&]""")
_REDACTED = re.compile(r"\[[A-Z_]+_\d+\]")
_PHRASE = 10
"""Shortest text, in characters, that is looked for as a whole, if it has several words: many people say "yes"."""


@dataclass
class Belongings:
    """Everything by which a person can be belongings."""

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

    def owns(self, row: JsonValue) -> bool:
        """Tell whether a row, as JSON, is one of theirs or was made with their words."""
        if not isinstance(row, dict) or row.get("tenant", self.tenant) != self.tenant:
            return False
        events = row.get("source_events") or row.get("events") or []
        return (
            row.get("item_id") in self.item_ids
            or self._speaks(row.get("subject"))
            or row.get("interaction_id") in self.interactions
            or self.person in (row.get("user"), row.get("actor"))
            or (isinstance(events, list) and any(event in self.events for event in events))
        )

    def _speaks(self, subject: JsonValue) -> bool:
        """Whether a subject is an interaction, document or orphan of theirs, not just one that they spoke of: what
        others made of that before is not made with their words."""
        if not isinstance(subject, str):
            return False
        return subject in self.interactions or subject.removeprefix("document/").rpartition("?")[2] in self.events


def find_belongings(
    store: Store, lake: Lake, tenant: str, person: str, *, finder: Finder | None = None, raw: str | None = None
) -> Belongings:
    """Find all that belongs to a person (by pseudonym) in store and lake.

    Args:
        raw: the id as applications send it, if known: rows of files that could not be read hold it as it is.
        finder: what ingest looks for personal data with; None: our own patterns.
    """
    belongings = Belongings(tenant, person)
    texts: list[str] = []
    with store.database.connect() as connection:
        mine = select(interactions.c.interaction_id, interactions.c.body).where(
            interactions.c.tenant == tenant, interactions.c.user == person
        )
        for interaction_id, body in connection.execute(mine):
            belongings.interactions.add(interaction_id)
            texts += _texts(json.loads(body))
        given = [
            connection.execute(
                select(feedback.c.event_id, feedback.c.interaction_id, feedback.c.body).where(
                    feedback.c.tenant == tenant, condition
                )
            ).all()
            for condition in [feedback.c.actor == person, *_among(feedback.c.interaction_id, belongings.interactions)]
        ]
    for event_id, about, body in (row for rows in given for row in rows):
        belongings.events.add(event_id)
        belongings.subjects |= {about or event_id, event_id, f"document/{event_id}", f"{about}?{event_id}"}
        texts += _texts(json.loads(body))
    belongings.subjects |= belongings.interactions
    for example in _examples(lake, belongings):
        if belongings.owns({"subject": example.subject, "source_events": list(example.source_events)}):
            belongings.item_ids.add(item_id_of(example))
        if example.subject in belongings.interactions or belongings.events.issuperset(example.source_events):
            texts += [example.completion or "", example.chosen or "", example.rejected or "", example.reference or ""]
            texts += [example.text or "", *(m.content for m in example.messages if m.role != "system")]
    texts += _held_texts(lake, belongings)
    lying = quarantined_rejects(lake, tenant)
    with store.database.connect() as connection:
        for row in connection.execute(select(source_rejects).where(names_person(tenant, person, raw))).mappings():
            reject = RejectedRow(**row)
            if reject.raw != GONE or lying.get(reject.row_id, GONE) != GONE:
                belongings.rejects.add(reject.row_id)
                texts.append(reject.raw)
    belongings.needles = {needle for text in texts for needle in [*_needles_of(text), *_needles_beside(text, finder)]}
    short = {text.strip() for text in texts if text.strip() and not _needles_of(text)}
    belongings.short = len(short)
    belongings.phrases = {text for text in short if len(text) >= _PHRASE and " " in text}
    leave_shared_texts(store, belongings)
    return belongings


def join_belongings(stores: Sequence[Store], every: Sequence[Belongings]) -> Belongings:
    """Join what several stores hold of the same person; what others in any of them said is theirs."""
    belongings = every[0]
    for more in every[1:]:
        for name in ("interactions", "events", "subjects", "item_ids", "rejects", "needles", "phrases"):
            getattr(belongings, name).update(getattr(more, name))
        belongings.short += more.short
        belongings.elsewhere |= more.elsewhere
    for store in stores if len(every) > 1 else ():
        leave_shared_texts(store, belongings)
    return belongings


def _needles_of(text: str) -> list[str]:
    """The longest stretch of a text that looks the same in JSON, HTML and plain files; none for short texts."""
    stretches = sorted(_SEGMENT.findall(text), key=len)
    return [stretches[-1]] if stretches else []


def _needles_beside(text: str, finder: Finder | None) -> list[str]:
    """The longest stretch that the redacted copies of a text have in common with it, however these are numbered."""
    return _needles_of(_REDACTED.sub("\n", Redactor(find=finder).text(text)))


def _held_texts(lake: Lake, belongings: Belongings) -> list[str]:
    """What quarantined rows hold of the person's words: made clean as ingest does it, so perhaps unlike the store's."""
    import polars as pl

    rows = lake.scan("quarantine")
    if rows is None:
        return []
    texts: list[str] = []
    mine = (pl.col("tenant") == belongings.tenant) & pl.col("subject").is_in(sorted(belongings.subjects))
    for row in rows.filter(mine & (pl.col("step") != "source")).collect().iter_rows(named=True):
        content = json.loads(row["content"])
        if row["subject"] in belongings.interactions:
            texts += _texts(content)
        elif belongings.events.issuperset(row["events"]):
            texts += _texts(content.get("feedback"))
    return texts


def _examples(lake: Lake, belongings: Belongings) -> Iterator[Example]:
    """Every example that was ever made of the person's subjects."""
    import polars as pl

    rows = lake.scan("accepted")
    if rows is None:
        return
    mine = (pl.col("tenant") == belongings.tenant) & pl.col("subject").is_in(sorted(belongings.subjects))
    for row in rows.filter(mine).collect().iter_rows(named=True):
        yield example_of(row)


def leave_shared_texts(store: Store, belongings: Belongings) -> None:
    """Take out needles and phrases that stand in other people's rows as well: those are theirs. Note whether another
    tenant knows the same id."""
    shared: set[str] = set()
    with store.database.connect() as connection:
        for table, own in ((interactions, interactions.c.user), (feedback, feedback.c.actor)):
            names = interactions.c.interaction_id if table is interactions else feedback.c.event_id
            mine = belongings.interactions if table is interactions else belongings.events
            others = or_(own.is_(None), own != belongings.person, table.c.tenant != belongings.tenant)
            for name, tenant, whose, body in connection.execute(
                select(names, table.c.tenant, own, table.c.body).where(others)
            ):
                if tenant == belongings.tenant and name in mine:
                    continue
                belongings.elsewhere |= whose == belongings.person
                texts = _texts(json.loads(body))
                together = "\n".join(texts)
                shared |= {needle for needle in belongings.needles if needle in together}
                shared |= belongings.phrases.intersection(map(str.strip, texts))
    belongings.needles -= shared
    belongings.phrases -= shared


def _among(column: ColumnElement[str], names: set[str]) -> list[ColumnElement[bool]]:
    ordered = sorted(names)
    return [column.in_(ordered[start : start + _CHUNK]) for start in range(0, len(ordered), _CHUNK)]


def _texts(value: JsonValue) -> list[str]:
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
