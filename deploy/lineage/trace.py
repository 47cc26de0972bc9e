"""Trace anything to what it was made of, and to what was made of it: answer, feedback, example, snapshot, version.

ratchet lineage ANYTHING    (a number is an entry of the ledger)
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.ledger.ledger import Entry
from deploy.lineage.lookup import Answers, Lookup, parts_with
from deploy.versions.versions import list_versions
from feedback.events import Feedback
from feedback.examples import Example
from feedback.snapshots.layout import TRAIN, VALIDATION
from feedback.store.store import Store
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


def trace(places: Places, store: Store, name: str, *, tenant: str) -> Lineage:
    """Trace what `name` was made of, and what became of it.

    Args:
        name: id of an answer (interaction), a feedback event, an example (x-...), a snapshot (s-...) or a version, or
            the number of an entry of the ledger.

    Raises:
        NotFound: nothing of that name is here.
    """
    lookup = Lookup(places, store, tenant)
    snapshot = next((folder for folder in lookup.snapshots() if folder.name == name), None)
    if snapshot is not None:
        return _of_snapshot(lookup, snapshot)
    if name in list_versions(places.versions_dir):
        return _of_version(lookup, name)
    examples = lookup.examples("example_id", name) if name.startswith("x-") else []
    if examples:
        return _of_example(lookup, examples[-1])
    event = lookup.event(name)
    if event is not None:
        return _of_feedback(lookup, event)
    answer = store.interaction(tenant, name)
    if answer is not None:
        return _of_answer(lookup, name, answer.version)
    entry = next((e for e in lookup.entries if name.isdecimal() and e.seq == int(name)), None)
    if entry is not None:
        return _of_release(lookup, entry)
    raise NotFound(
        f"nothing is called {name!r} in tenant {tenant!r}; expected the id of an answer, a feedback event, an example "
        "(x-...), a snapshot (s-...), a version, or the number of a release in the ledger"
    )


def _of_answer(lookup: Lookup, name: str, version: str) -> Lineage:
    made_of = [Link(kind="version", name=version, note="gave the answer"), *_snapshots_of(lookup, version)]
    became = [Link(kind="feedback", name=event, note=_outcome(lookup, event)) for event in lookup.events_about(name)]
    for example in lookup.examples("subject", name):
        became.append(Link(kind="example", name=example.example_id, note=f"{example.shape}: {example.reason}"))
        became += _holding(lookup, example)
    return Lineage(kind="answer", name=name, made_of=tuple(made_of), became=_once(became))


def _of_feedback(lookup: Lookup, event: Feedback) -> Lineage:
    name, about = event.event_id, event.interaction_id
    made_of = [Link(kind="answer", name=about, note=f"the {event.kind} is about it")] if about else []
    became: list[Link] = []
    for example in lookup.examples_of_event(name):
        how = example.reason if name in example.source_events else "merged into it"
        became.append(Link(kind="example", name=example.example_id, note=f"{example.shape}: {how}"))
        became += _holding(lookup, example)
    if not became:
        made_of.append(Link(kind="feedback", name=name, note=_outcome(lookup, name)))
    return Lineage(kind="feedback", name=name, made_of=tuple(made_of), became=_once(became))


def _of_example(lookup: Lookup, example: Example) -> Lineage:
    name, events = example.example_id, example.source_events
    made_of = [Link(kind="feedback", name=event, note=_outcome(lookup, event)) for event in events]
    merged = [event for event in lookup.merged_events(name) if event not in events]
    made_of += [Link(kind="feedback", name=event, note="merged into it") for event in merged]
    if example.shape != "document":
        made_of.append(Link(kind="answer", name=example.subject, note=f"answered by {example.version}"))
        if example.version:
            made_of += _snapshots_of(lookup, example.version)
    return Lineage(kind="example", name=name, made_of=tuple(made_of), became=_once(_holding(lookup, example)))


def _of_snapshot(lookup: Lookup, folder: Path) -> Lineage:
    made_of = []
    for part in (TRAIN, VALIDATION):
        rows = _rows(folder / part)
        for row in rows[:5]:
            note = f"{part}: {row.shape}, from {', '.join(row.source_events)}"
            made_of.append(Link(kind="example", name=row.example_id, note=note))
        if len(rows) > 5:
            note = f"{part}; `ratchet data show {folder.name}`"
            made_of.append(Link(kind="example", name=f"{len(rows) - 5} more", note=note))
    became = _once(_trained_on(lookup, folder))
    return Lineage(kind="snapshot", name=folder.name, made_of=tuple(made_of), became=became)


def _of_version(lookup: Lookup, name: str) -> Lineage:
    record = read_record(lookup.places.versions_dir / name)
    assert record is not None
    made_of = [Link(kind="stage", name=record.key, note=record.name), *_snapshots_of(lookup, name)]
    return Lineage(kind="version", name=name, made_of=tuple(made_of), became=tuple(_uses(lookup, name)))


def _of_release(lookup: Lookup, entry: Entry) -> Lineage:
    made_of = [Link(kind="version", name=entry.version, note=f"{entry.action}: {entry.reason[:120]}")]
    made_of += _snapshots_of(lookup, entry.version)
    became = tuple(_answers(lookup.answers_under(entry.seq)))
    return Lineage(kind="release", name=str(entry.seq), made_of=tuple(made_of), became=became)


def _snapshots_of(lookup: Lookup, version: str) -> list[Link]:
    note = f"{version} was trained on it"
    return [Link(kind="snapshot", name=name, note=note) for name in lookup.snapshots_of(version)]


def _holding(lookup: Lookup, example: Example) -> list[Link]:
    """Snapshots that hold an example, as a lesson or as the gate item made of it, and what became of them."""
    links = []
    for folder in lookup.snapshots():
        parts = set(parts_with(folder, example))
        if parts:
            links.append(Link(kind="snapshot", name=folder.name, note=f"in {', '.join(sorted(parts))}"))
            if parts & {TRAIN, VALIDATION}:
                links += _trained_on(lookup, folder)
    return links


def _trained_on(lookup: Lookup, snapshot: Path) -> list[Link]:
    """Versions trained on a snapshot, each with its releases and answers."""
    links = []
    for version in lookup.versions_on(snapshot):
        links += [Link(kind="version", name=version, note="trained on it"), *_uses(lookup, version)]
    return links


def _uses(lookup: Lookup, version: str) -> list[Link]:
    """A version's entries of the ledger, and how many answers it gave."""
    releases = [
        Link(kind="release", name=str(entry.seq), note=f"{entry.action} {version}: {entry.reason[:120]}")
        for entry in lookup.entries_of(version)
    ]
    return [*releases, *_answers(lookup.answers_of(version))]


def _answers(answers: Answers) -> list[Link]:
    if not answers.count:
        return []
    return [Link(kind="answer", name=f"{answers.count} answers", note=f"the latest: {', '.join(answers.latest)}")]


def _outcome(lookup: Lookup, event: str) -> str:
    """Who said it, and how it ended."""
    said, last = lookup.event(event), lookup.outcome_of(event)
    who = f"{said.kind} by {said.actor}{' (trusted)' if said.trusted else ''}: " if said is not None else ""
    if last is None:
        return f"{who}not ingested yet"
    into = f", into {', '.join(last.examples)}" if last.status == "merged" and last.examples else ""
    return f"{who}{last.status} ({last.code}){into}"


def _rows(file: Path) -> list[Example]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [Example.model_validate_json(line) for line in lines if line]


def _once(links: Iterable[Link]) -> tuple[Link, ...]:
    return tuple(dict.fromkeys(links))
