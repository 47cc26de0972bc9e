"""Show on the console where any id came from and what it led to, a card for each thing that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from pydantic import Field
from sqlalchemy import Engine

from deploy.config import ConsoleJob
from deploy.lineage.lookup import Lookup, parts_with
from deploy.nights.record import NightRecord
from deploy.nights.steps import SNAPSHOT, VERDICT
from feedback.examples import Example
from feedback.store.store import Store
from infra.artifact import read_record
from infra.errors import NotFound
from infra.settings import Config, Places

_MEASURES = ("examples", "steps", "validation_loss", "trained_parameters", "seconds")
"""Of a stage's result, those that are shown."""
_MOST = 20
"""Most examples, outcomes and snapshots that are looked at."""


class Card(Config):
    """What is known of one thing."""

    kind: str
    title: str
    """Its id."""
    facts: Mapping[str, object]
    """Name to value; empty ones are left out."""
    links: tuple[str, ...]
    """Ids that can be asked for in turn."""


class Cards(Config):
    """All that an id names."""

    name: str = Field(serialization_alias="asked")
    cards: tuple[Card, ...]


def trace(database: Engine, console: ConsoleJob, tenant: str, name: str) -> Cards:
    """Say everything that is known of an id, whatever it names.

    Raises:
        NotFound: it names nothing of this tenant.
    """
    lookup = Lookup(Places(home=console.home), Store(database), tenant)
    cards = [card for of in (_answer, _event, _examples, _version, _snapshot, _night) for card in of(lookup, name)]
    if not cards:
        raise NotFound(
            f"nothing of this tenant is called {name!r}; expected the id of an answer, a feedback event, an example, "
            "a snapshot, a version or a night"
        )
    return Cards(name=name, cards=tuple(cards))


def _card(kind: str, title: str, facts: Mapping[str, object], links: Iterable[str | None]) -> Card:
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    return Card(kind=kind, title=title, facts=shown, links=tuple(link for link in dict.fromkeys(links) if link))


def _answer(lookup: Lookup, name: str) -> list[Card]:
    answer = lookup.store.interaction(lookup.tenant, name)
    if answer is None:
        return []
    events = lookup.store.feedback_for(lookup.tenant, name)
    facts = {
        "asked": answer.messages[-1].content if answer.messages else "",
        "answered": answer.answer,
        "version": answer.version,
        "at": answer.created_at.isoformat(),
        "user": answer.user,
        "arm": answer.routing.arm if answer.routing else None,
        "ledger line": answer.routing.release_seq if answer.routing else None,
        "feedback": [f"{event.kind} by {event.actor}{' (trusted)' if event.trusted else ''}" for event in events],
    }
    return [_card("answer", name, facts, [answer.version, *(event.event_id for event in events)])]


def _event(lookup: Lookup, name: str) -> list[Card]:
    event = lookup.event(name)
    if event is None:
        return []
    facts = {
        "kind": event.kind,
        "said": event.value.model_dump(mode="json", exclude={"kind"}),
        "by": event.actor,
        "trusted": event.trusted,
        "at": event.created_at.isoformat(),
        "source": event.source,
    }
    return [_card("event", name, facts, [event.interaction_id])]


def _examples(lookup: Lookup, name: str) -> list[Card]:
    """Examples of that id, made of that event or about that answer; with how the events ended."""
    import polars as pl

    cards: list[Card] = []
    of_event = (pl.col("event_id") == name) | (pl.col("subject") == name)
    for ingested in lookup.outcomes(of_event, limit=_MOST):
        last = ingested.outcome
        facts = {"status": last.status, "reason": last.code, "batch": ingested.batch, "about": last.subject}
        cards.append(_card("fate", last.event_id, facts, [last.subject, *last.examples]))
    about = (pl.col("example_id") == name) | (pl.col("subject") == name) | pl.col("source_events").list.contains(name)
    for accepted in lookup.accepted(about, limit=_MOST):
        row, snapshots = accepted.example, _newest_holding(lookup, accepted.example)
        facts = {"shape": row.shape, "task": row.task, "trusted": row.trusted, "reason": row.reason}
        facts |= {"batch": accepted.batch, "in snapshots": snapshots}
        cards.append(_card("example", row.example_id, facts, [row.subject, *row.source_events, *snapshots]))
    return cards


def _newest_holding(lookup: Lookup, example: Example) -> list[str]:
    """Snapshots that hold an example, or the gate item made of it; the newest are looked at."""
    folders = sorted(lookup.snapshots(), key=lambda path: path.stat().st_mtime, reverse=True)
    return [folder.name for folder in folders[:_MOST] if any(True for _ in islice(parts_with(folder, example), 1))]


def _version(lookup: Lookup, name: str) -> list[Card]:
    entries = [entry for entry in lookup.entries if name in (entry.version, entry.previous)]
    about = lookup.entries_of(name)
    if not entries:
        return []
    folder = lookup.places.versions_dir / name
    record = read_record(folder) if "/" not in name and not name.startswith(".") else None
    gate = next((entry.evidence.gate for entry in about if entry.evidence.gate is not None), None)
    snapshot = gate.snapshot if gate is not None else None
    facts = {
        "releases": [f"{e.seq}: {e.action} by {e.actor} at {e.at:%Y-%m-%d %H:%M} ({e.reason})" for e in about],
        "made of": record.name if record else None,
        "recipe": dict(record.config.get("spec", {})) if record else None,
        "parents": dict(record.parents) if record else None,
        "result": {measure: record.result.get(measure) for measure in _MEASURES} if record else None,
        "digest": record.digest if record else None,
        "snapshot": snapshot,
        "gain": gate.gain if gate is not None else None,
        "MLflow run": gate.mlflow_run if gate is not None else None,
    }
    nights = [entry.night_id for entry in about]
    others = [version for entry in entries for version in (entry.version, entry.previous) if version != name]
    return [_card("version", name, facts, [snapshot, *nights, *others])]


def _snapshot(lookup: Lookup, name: str) -> list[Card]:
    from feedback.snapshots.snapshot import load_snapshot

    if not name.startswith("s-") or "/" in name:
        return []
    try:
        snapshot = load_snapshot(lookup.places.snapshots_dir / name)
    except NotFound:
        return []
    if snapshot.tenant != lookup.tenant:
        return []
    nights = [night for night in lookup.nights if night.result(SNAPSHOT) == name]
    made = [version for night in nights for version in _trained(night)]
    facts = {"rows": snapshot.counts, "removed": snapshot.removed, "digest": snapshot.digest, "trained": made}
    return [_card("snapshot", name, facts, [*(night.night_id for night in nights), *made])]


def _night(lookup: Lookup, name: str) -> list[Card]:
    night = next((night for night in lookup.nights if night.night_id == name), None)
    if night is None:
        # A version that was trained and never released is known by its night only.
        return [
            _card("trained", name, {"in night": n.night_id, "outcome": n.outcome}, [n.night_id, n.result(SNAPSHOT)])
            for n in [night for night in lookup.nights if name in _trained(night)][:5]
        ]
    verdict = night.result(VERDICT)
    times = night.model_dump(mode="json", include={"started_at", "finished_at"})
    facts = {
        "state": night.state,
        "outcome": night.outcome,
        "began": times["started_at"],
        "ended": times["finished_at"],
        "decision": verdict.decision if verdict else None,
        "reasons": list(verdict.reasons) if verdict else None,
    }
    links = [night.result(SNAPSHOT), *_trained(night), verdict.champion if verdict else None]
    return [_card("night", name, facts, links)]


def _trained(night: NightRecord) -> list[str]:
    """Versions that a night's stages made."""
    return [stage.version for challenger in night.trained() for stage in challenger.stages]
