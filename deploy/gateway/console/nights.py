"""Show nights on the console: how far tonight's is, what earlier ones came to, and their scorecards.

Read from the folders that the night writes: the gateway shares a disk with the flow runner or shows none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue, SerializerFunctionWrapHandler, model_serializer

from deploy.nights.record import NightRecord, NightState, read_records
from deploy.nights.request import StoredRequest
from deploy.nights.steps import INGEST, PLAN, SNAPSHOT, VERDICT
from evaluation.gate.verdict import Decision
from evaluation.scorecard import Scorecard, read_scorecard
from infra.errors import NotFound
from infra.processes.progress import FILE as PROGRESS
from infra.processes.progress import last_progress
from infra.settings import Config, Places

_NAME = re.compile(r"[A-Za-z0-9_-]{1,120}")


class Work(Config):
    """How far something is that is being worked on now."""

    what: str
    done: int
    total: int
    loss: float | None = None
    """Training loss; left out where there is none."""

    @model_serializer(mode="wrap")
    def _without_no_loss(self, dump: SerializerFunctionWrapHandler) -> object:
        return {name: value for name, value in dump(self).items() if name != "loss" or value is not None}


class NightRow(Config):
    """One night in the list."""

    night_id: str
    state: NightState
    attempts: int
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    steps: tuple[str, ...]
    """Finished steps, in order."""
    seconds: Mapping[str, float]
    """Step to how long it took."""
    snapshot: JsonValue
    """Its name, as the record keeps it."""
    decision: Decision | None
    winner: str | None
    flow_runs: tuple[str, ...]


class Tonight(NightRow):
    """The night that runs."""

    progress: tuple[Work, ...]


class NightList(Config):
    """The last nights, newest first."""

    nights: tuple[NightRow, ...]
    tonight: Tonight | None


class NightPage(NightRow):
    """One night: request, plan, ingest and verdict as its record keeps them, and the scorecard."""

    request: StoredRequest
    plan: JsonValue
    intake: JsonValue
    verdict: JsonValue
    progress: tuple[Work, ...]
    scorecard: Mapping[str, JsonValue] | None
    examples: tuple[JsonValue, ...] | None
    """Answers side by side; None for readers who may not see what people wrote."""


def scorecard_of(home: Path, night_id: str) -> Scorecard | None:
    """Read a night's scorecard; None before it is finished."""
    folder = Places(home=home).evaluations_dir / night_id
    return read_scorecard(folder) if (folder / "scorecard.json").exists() else None


def list_nights(home: Path, tenant: str) -> NightList:
    """List the last 30 nights; of one that runs also how far the work of the moment is."""
    records = read_records(Places(home=home).nights_dir, tenant)[:30]
    running = next((record for record in records if record.state == "running"), None)
    return NightList(
        nights=tuple(_row(record) for record in records),
        tonight=None if running is None else Tonight(**dict(_row(running)), progress=progress(home, running)),
    )


def show_night(home: Path, tenant: str, night_id: str, *, texts: bool) -> NightPage:
    """Show one night, and with `texts` the answers side by side.

    Raises:
        NotFound: the tenant has no such night.
    """
    if not _NAME.fullmatch(night_id):
        raise NotFound(f"no night {night_id!r}")
    record = next(
        (record for record in read_records(Places(home=home).nights_dir, tenant) if record.night_id == night_id), None
    )
    if record is None:
        raise NotFound(f"no night {night_id!r} of tenant {tenant!r}")
    scorecard = scorecard_of(home, night_id)
    return NightPage(
        **dict(_row(record)),
        request=record.request,
        plan=record.stored(PLAN),
        intake=record.stored(INGEST),
        verdict=record.stored(VERDICT),
        progress=progress(home, record) if record.state == "running" else (),
        scorecard=None if scorecard is None else _without_items(scorecard),
        examples=_examples(home, night_id) if texts else None,
    )


def progress(home: Path, record: NightRecord) -> tuple[Work, ...]:
    """Say what is being worked on now: a stage's steps, or the evaluation's questions."""
    places, work = Places(home=home), []
    for file in sorted(places.stages_dir.glob(f".*.work/{PROGRESS}")):
        line = last_progress(file)
        if line is not None:
            what = f"training {file.parent.name.removeprefix('.').split('.')[0][:8]}"
            work.append(Work(what=what, done=line.done, total=line.total, loss=line.loss))
    line = last_progress(places.evaluations_dir / record.night_id / PROGRESS)
    if line is not None and not record.has(VERDICT):
        work.append(Work(what=line.phase or "evaluation", done=line.done, total=line.total))
    return tuple(work)


def _row(record: NightRecord) -> NightRow:
    verdict = record.result(VERDICT)
    return NightRow(
        night_id=record.night_id,
        state=record.state,
        attempts=record.attempts,
        started_at=record.started_at,
        finished_at=record.finished_at,
        outcome=record.outcome,
        steps=tuple(record.steps),
        seconds=record.seconds,
        snapshot=record.stored(SNAPSHOT),
        decision=verdict.decision if verdict else None,
        winner=verdict.winner if verdict else None,
        flow_runs=record.flow_runs,
    )


def _without_items(scorecard: Scorecard) -> dict[str, JsonValue]:
    """A scorecard as JSON without the per-item values."""
    return scorecard.model_dump(
        mode="json", include={"champion", "base", "versions", "metrics", "judges", "seconds"}
    ) | {
        "items": len(scorecard.gate.items),
        "estimates": [e.model_dump(mode="json") for e in scorecard.estimates if e.part == "all"],
        "changes": [
            c.model_dump(mode="json") for c in scorecard.changes if c.slice == "all" and c.since == scorecard.champion
        ],
    }


def _examples(home: Path, night_id: str) -> tuple[JsonValue, ...]:
    """Answers to items that people may see (validation and retired ones, never the gate's)."""
    file = Places(home=home).evaluations_dir / night_id / "examples.json"
    try:
        examples = json.loads(file.read_text())
    except (OSError, ValueError):
        return ()
    return tuple(examples[:50]) if isinstance(examples, list) else ()
