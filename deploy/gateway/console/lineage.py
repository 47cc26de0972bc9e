"""From any id to where it came from and what it led to; and the rows that were kept out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select

from deploy.api_keys import ApiKey
from deploy.config import ConsoleJob
from deploy.gateway.console.nights import night_files
from deploy.ledger.ledger import history
from feedback.snapshots.layout import GATE_FILES, SHOWN, TRAIN, VALIDATION
from feedback.store.store import Store
from feedback.store.store import feedback as feedback_table
from infra.artifact import read_record, version_name
from infra.errors import NotFound
from infra.settings import Places

if TYPE_CHECKING:
    from deploy.gateway.console.mount import Decision

Card = dict[str, Any]
"""kind, title, facts (name -> value), links (ids that can be asked for in turn)."""


def held(database: Engine, home: Path, tenant: str, code: str | None, limit: int) -> dict[str, Any]:
    """Rows that wait for a decision, newest first, with the number for every reason."""
    from feedback.lake.lake import lake_of
    from feedback.lake.quarantine import held_rows

    rows = held_rows(Store(database), lake_of(Places(home=home)), tenant=tenant)
    shown = [row for row in rows if code is None or row.code == code]
    return {
        "total": len(rows),
        "codes": dict(Counter(row.code for row in rows).most_common()),
        "rows": [row.model_dump(mode="json") for row in shown[:limit]],
    }


def decide(database: Engine, home: Path, key: ApiKey, row_id: str, decision: str, asked: Decision) -> str:
    """Accept or drop a row of the key's own tenant; its id.

    Raises:
        NotFound: the tenant has no such row.
        UserError: it was decided before, or the correction does not fit.
    """
    from feedback.lake.lake import lake_of
    from feedback.lake.quarantine import accept, drop, show

    store, lake = Store(database), lake_of(Places(home=home))
    row = show(store, lake, row_id)
    if row.tenant != key.tenant:
        raise NotFound(f"no quarantined row {row_id!r}")
    by = f"console:{key.name}"
    if decision == "accept":
        return accept(store, lake, row.row_id, by=by, note=asked.note, correction=asked.correction).row_id
    return drop(store, lake, row.row_id, by=by, note=asked.note).row_id


def trace(database: Engine, console: ConsoleJob, tenant: str, asked: str) -> dict[str, Any]:
    """Everything known of an id, whatever it names.

    Raises:
        NotFound: it names nothing of this tenant.
    """
    places = Places(home=console.home)
    cards = [
        *_answer(database, tenant, asked),
        *_event(database, tenant, asked),
        *_examples(places, tenant, asked),
        *_version(database, console, tenant, asked),
        *_snapshot(places, tenant, asked),
        *_night(console.home, tenant, asked),
    ]
    if not cards:
        raise NotFound(
            f"nothing of this tenant is called {asked!r}; expected the id of an answer, a feedback event, an example, "
            "a snapshot, a version or a night"
        )
    return {"asked": asked, "cards": cards}


def _card(kind: str, title: str, facts: dict[str, Any], links: list[str | None]) -> Card:
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    return {"kind": kind, "title": title, "facts": shown, "links": [link for link in dict.fromkeys(links) if link]}


def _answer(database: Engine, tenant: str, asked: str) -> list[Card]:
    store = Store(database)
    found = store.interaction(tenant, asked)
    if found is None:
        return []
    said = store.feedback_for(tenant, asked)
    facts = {
        "asked": found.messages[-1].content if found.messages else "",
        "answered": found.answer,
        "version": found.version,
        "at": found.created_at.isoformat(),
        "user": found.user,
        "arm": found.routing.arm if found.routing else None,
        "ledger line": found.routing.release_seq if found.routing else None,
        "feedback": [f"{event.kind} by {event.actor}{' (trusted)' if event.trusted else ''}" for event in said],
    }
    return [_card("answer", asked, facts, [found.version, *(event.event_id for event in said)])]


def _event(database: Engine, tenant: str, asked: str) -> list[Card]:
    query = select(feedback_table.c.body).where(feedback_table.c.tenant == tenant, feedback_table.c.event_id == asked)
    from feedback.events import Feedback

    with database.connect() as connection:
        row = connection.execute(query).first()
    if row is None:
        return []
    event = Feedback.model_validate_json(row[0])
    facts = {
        "kind": event.kind,
        "said": event.value.model_dump(mode="json", exclude={"kind"}),
        "by": event.actor,
        "trusted": event.trusted,
        "at": event.created_at.isoformat(),
        "source": event.source,
    }
    return [_card("event", asked, facts, [event.interaction_id])]


def _examples(places: Places, tenant: str, asked: str) -> list[Card]:
    """Examples of that id, made of that event or about that answer; with how the events ended."""
    import polars as pl

    from feedback.lake.frames import example_of
    from feedback.lake.lake import lake_of
    from feedback.snapshots.gate_items import item_id_of

    lake = lake_of(places)
    accepted, fates = lake.scan("accepted"), lake.scan("fates")
    cards: list[Card] = []
    if fates is not None:
        mine = (pl.col("tenant") == tenant) & ((pl.col("event_id") == asked) | (pl.col("subject") == asked))
        for row in fates.filter(mine).head(20).collect().iter_rows(named=True):
            facts = {"status": row["status"], "reason": row["code"], "batch": row["batch"], "about": row["subject"]}
            cards.append(_card("fate", row["event_id"], facts, [row["subject"], *row["examples"]]))
    if accepted is not None:
        about = (
            (pl.col("example_id") == asked)
            | (pl.col("subject") == asked)
            | pl.col("source_events").list.contains(asked)
        )
        rows = accepted.filter((pl.col("tenant") == tenant) & about).head(20).collect()
        for row in rows.iter_rows(named=True):
            snapshots = holding(places, row["example_id"], item_id_of(example_of(row)))
            facts = {"shape": row["shape"], "task": row["task"], "trusted": row["trusted"], "reason": row["reason"]}
            facts |= {"batch": row["batch"], "in snapshots": snapshots}
            links = [row["subject"], *row["source_events"], *snapshots]
            cards.append(_card("example", row["example_id"], facts, links))
    return cards


def holding(places: Places, example_id: str, item_id: str) -> list[str]:
    """Snapshots that hold an example, or the gate item made of it; the newest 20 are looked at."""
    needles = (f'"example_id":"{example_id}"', f'"item_id":"{item_id}"')
    folders = sorted(places.snapshots_dir.glob("s-*"), key=lambda path: path.stat().st_mtime, reverse=True)[:20]
    found = []
    for folder in folders:
        for file in (folder / part for part in (TRAIN, VALIDATION, *GATE_FILES.values(), SHOWN)):
            if not file.exists():
                continue
            with file.open(encoding="utf-8") as rows:
                if any(needle in row for row in rows for needle in needles):
                    found.append(folder.name)
                    break
    return found


def _version(database: Engine, console: ConsoleJob, tenant: str, asked: str) -> list[Card]:
    lines = [line for line in history(database, tenant) if asked in (line.version, line.previous)]
    about = [line for line in lines if line.version == asked]
    if not lines:
        return []
    places = Places(home=console.home)
    record = read_record(places.versions_dir / asked) if "/" not in asked and not asked.startswith(".") else None
    gate = next((line.evidence.gate for line in about if line.evidence.gate is not None), None)
    run, snapshot = (gate.mlflow_run, gate.snapshot) if gate is not None else (None, None)
    facts = {
        "releases": [
            f"{line.seq}: {line.action} by {line.actor} at {line.at:%Y-%m-%d %H:%M} ({line.reason})" for line in about
        ],
        "made of": record.name if record else None,
        "recipe": dict(record.config.get("spec", {})) if record else None,
        "parents": dict(record.parents) if record else None,
        "result": {
            name: record.result.get(name)
            for name in ("examples", "steps", "validation_loss", "trained_parameters", "seconds")
        }
        if record
        else None,
        "digest": record.digest if record else None,
        "snapshot": snapshot,
        "gain": gate.gain if gate is not None else None,
        "MLflow run": run,
    }
    nights = [line.night_id for line in about]
    others = [name for line in lines for name in (line.version, line.previous) if name != asked]
    return [_card("version", asked, facts, [snapshot, *nights, *others])]


def _snapshot(places: Places, tenant: str, asked: str) -> list[Card]:
    from feedback.snapshots.snapshot import load_snapshot

    if not asked.startswith("s-") or "/" in asked:
        return []
    try:
        found = load_snapshot(places.snapshots_dir / asked)
    except NotFound:
        return []
    if found.tenant != tenant:
        return []
    used = [night for night in night_files(places.home_dir, tenant) if night["steps"].get("snapshot") == asked]
    facts = {"rows": found.counts, "removed": found.removed, "digest": found.digest}
    made = [version_name(stage["digest"]) for night in used for stage in _stages(night)]
    return [_card("snapshot", asked, {**facts, "trained": made}, [*(n["night_id"] for n in used), *made])]


def _stages(night: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        stage
        for name, step in night["steps"].items()
        if name.startswith("train ") and isinstance(step, dict)
        for stage in step.get("stages", ())
    ]


def _night(home: Path, tenant: str, asked: str) -> list[Card]:
    night = next((one for one in night_files(home, tenant) if one["night_id"] == asked), None)
    if night is None:
        # A version that was trained and never released is known by its night only.
        nights = night_files(home, tenant)
        made = [one for one in nights if asked in [version_name(stage["digest"]) for stage in _stages(one)]]
        return [
            _card("trained", asked, {"in night": one["night_id"], "outcome": one["outcome"]},
                  [one["night_id"], one["steps"].get("snapshot")])
            for one in made[:5]
        ]  # fmt: skip
    steps = night["steps"]
    verdict = steps.get("verdict") or {}
    facts = {
        "state": night["state"],
        "outcome": night["outcome"],
        "began": night["started_at"],
        "ended": night["finished_at"],
        "decision": verdict.get("decision"),
        "reasons": verdict.get("reasons"),
    }
    trained = [version_name(stage["digest"]) for stage in _stages(night)]
    return [_card("night", asked, facts, [steps.get("snapshot"), *trained, verdict.get("champion")])]
