"""Nights as the console shows them: how far tonight's is, what earlier ones came to, and their scorecards.

Read from the folders that the night writes, as data: the gateway shares a disk with the flow runner or shows none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evaluation.scorecard import Scorecard, read_scorecard
from infra.errors import NotFound
from infra.processes.progress import FILE, last_progress
from infra.settings import Places

_NAME = re.compile(r"[A-Za-z0-9_-]{1,120}")


def night_files(home: Path, tenant: str) -> list[dict[str, Any]]:
    """All records of a tenant's nights, newest first."""
    found = []
    for file in Places(home=home).nights_dir.glob("*/night.json"):
        try:
            value = json.loads(file.read_text())
        except (OSError, ValueError):
            continue  # being replaced this moment
        if value.get("tenant") == tenant:
            found.append(value)
    return sorted(found, key=lambda night: str(night["started_at"]), reverse=True)


def scorecard_of(home: Path, night_id: str) -> Scorecard | None:
    """The night's scorecard once it is finished."""
    folder = Places(home=home).evaluations_dir / night_id
    return read_scorecard(folder) if (folder / "scorecard.json").exists() else None


def overview(home: Path, tenant: str) -> dict[str, Any]:
    """The last 30 nights; for one that runs, its steps and how far the work of the moment is."""
    found = night_files(home, tenant)[:30]
    running = next((night for night in found if night["state"] == "running"), None)
    return {
        "nights": [_gist(night) for night in found],
        "tonight": None if running is None else {**_gist(running), "progress": progress(home, running)},
    }


def night(home: Path, tenant: str, night_id: str, *, texts: bool) -> dict[str, Any]:
    """One night: record, verdict, scorecard, and with `texts` the answers side by side.

    Raises:
        NotFound: the tenant has no such night.
    """
    if not _NAME.fullmatch(night_id):
        raise NotFound(f"no night {night_id!r}")
    record = next((one for one in night_files(home, tenant) if one["night_id"] == night_id), None)
    if record is None:
        raise NotFound(f"no night {night_id!r} of tenant {tenant!r}")
    steps = record["steps"]
    scorecard = scorecard_of(home, night_id)
    return {
        **_gist(record),
        "request": record["request"],
        "plan": steps.get("plan"),
        "intake": steps.get("ingest"),
        "verdict": steps.get("verdict"),
        "progress": progress(home, record) if record["state"] == "running" else [],
        "scorecard": None if scorecard is None else _readable(scorecard),
        "examples": _examples(home, night_id) if texts else None,
    }


def progress(home: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """What is being worked on now: a stage's steps, or the evaluation's questions."""
    places, found = Places(home=home), []
    for file in sorted(places.stages_dir.glob(f".*.work/{FILE}")):
        line = last_progress(file)
        if line is not None:
            what = f"training {file.parent.name.removeprefix('.').split('.')[0][:8]}"
            loss = {} if line.loss is None else {"loss": line.loss}
            found.append({"what": what, "done": line.done, "total": line.total, **loss})
    line = last_progress(places.evaluations_dir / record["night_id"] / FILE)
    if line is not None and "verdict" not in record["steps"]:
        found.append({"what": line.phase or "evaluation", "done": line.done, "total": line.total})
    return found


def _gist(record: dict[str, Any]) -> dict[str, Any]:
    steps = record["steps"]
    verdict = steps.get("verdict") or {}
    names = ("night_id", "state", "attempts", "started_at", "finished_at", "outcome")
    return {name: record.get(name) for name in names} | {
        "steps": list(steps),
        "seconds": record.get("seconds", {}),
        "snapshot": steps.get("snapshot"),
        "decision": verdict.get("decision"),
        "winner": verdict.get("winner"),
        "flow_runs": record.get("flow_runs", []),
    }


def _readable(scorecard: Scorecard) -> dict[str, Any]:
    """A scorecard without the per-item values."""
    return scorecard.model_dump(
        mode="json", include={"champion", "base", "versions", "metrics", "judges", "seconds"}
    ) | {
        "items": len(scorecard.gate.items),
        "estimates": [e.model_dump(mode="json") for e in scorecard.estimates if e.part == "all"],
        "changes": [
            c.model_dump(mode="json") for c in scorecard.changes if c.slice == "all" and c.since == scorecard.champion
        ],
    }


def _examples(home: Path, night_id: str) -> list[dict[str, Any]]:
    """Answers to items that people may see (validation and retired ones, never the gate's)."""
    file = Places(home=home).evaluations_dir / night_id / "examples.json"
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    return found[:50] if isinstance(found, list) else []
