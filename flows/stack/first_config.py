"""Write a first config for a file of corrections: which columns hold what, and settings for a day without users."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.config.errors import mistakes_of
from flows.config.pipeline import PipelineConfig
from infra.errors import NotFound, UserError
from infra.settings import Config

# What people call these columns. The first name that the file has is taken.
_NAMES = {
    "messages": ("messages", "conversation"),
    "prompt": ("prompt", "question", "input", "instruction", "query", "request", "text"),
    "answer": ("answer", "reply", "response", "output", "model_answer"),
    "edit": ("corrected", "correction", "corrected_answer", "corrected_reply", "edit", "edited", "better_answer"),
    "reference": ("reference", "target", "expected", "ideal", "gold", "label", "completion"),
    "user": ("user", "user_id", "customer", "customer_id"),
    "session": ("session", "session_id", "conversation_id", "thread_id"),
    "task": ("task", "category", "topic"),
    "created_at": ("created_at", "timestamp", "time", "date"),
}
LOOK_AT = 200
"""Rows that are looked at."""


class FirstConfig(Config):
    """What was found, and the config's text."""

    columns: Mapping[str, str]
    """Meaning -> column of the file."""
    rows: int
    """Rows in the file."""
    text: str
    """ratchet.yaml."""


def first_config(file: Path, *, pipeline: str, named: Mapping[str, str], base_model: str | None = None) -> FirstConfig:
    """Look at the file and write the config for it.

    Args:
        named: meaning -> column, for what cannot be told from the names.

    Raises:
        NotFound: there is no such file.
        UserError: a row is no object, no column holds a prompt or a corrected answer, or the name cannot be one.
    """
    if not file.is_file():
        raise NotFound(f"no file {file}; expected JSONL or CSV with one correction a row")
    rows = list(_rows(file))
    if not rows:
        raise UserError(f"{file} is empty; expected one correction a row")
    have = list(dict.fromkeys(name for row in rows[:LOOK_AT] for name in row))
    columns = columns_of(have, named)
    _check(columns, have, file)
    values = _values(file, pipeline, columns, base_model)
    try:
        PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(
            "; ".join(f"--{m}".replace("_", "-") for m in mistakes_of(error, PipelineConfig, values))
        ) from None
    head = f"# Made by `ratchet init {file.name}`; yours to change. `ratchet config check` finds mistakes.\n"
    return FirstConfig(columns=columns, rows=len(rows), text=head + yaml.safe_dump(values, sort_keys=False, width=110))


def columns_of(have: Iterable[str], named: Mapping[str, str]) -> dict[str, str]:
    """Meaning -> column: what was named, else what people usually call it."""
    there = list(have)
    unknown = sorted(set(named) - set(_NAMES))
    if unknown:
        raise UserError(f"--map: got {', '.join(unknown)}, expected one of {', '.join(_NAMES)}")
    missing = sorted(set(named.values()) - set(there))
    if missing:
        raise UserError(f"--map: the file has no column {', '.join(missing)}; it has {', '.join(there)}")
    lower = {name.casefold(): name for name in there}
    found = {
        meaning: next((lower[guess] for guess in guesses if guess in lower), None)
        for meaning, guesses in _NAMES.items()
    }
    wanted = {meaning: column for meaning, column in found.items() if column is not None} | dict(named)
    if "messages" in wanted:
        wanted.pop("prompt", None)
    if "edit" in wanted and "answer" not in wanted:
        # Without the answer that was given, the correction is simply the right answer.
        wanted["reference"] = wanted.pop("edit")
    if "edit" in wanted:
        wanted.pop("reference", None)
    return wanted


def _check(columns: Mapping[str, str], have: list[str], file: Path) -> None:
    prompt = "prompt" in columns or "messages" in columns
    answer = "edit" in columns or "reference" in columns
    if prompt and answer:
        return
    missing = "the prompt" if not prompt else "the corrected answer"
    raise UserError(
        f"{file}: cannot tell which column holds {missing}; it has {', '.join(have)}. "
        f"Say it with --map {'prompt' if not prompt else 'edit'}=COLUMN"
    )


def _values(file: Path, pipeline: str, columns: Mapping[str, str], base_model: str | None) -> dict[str, Any]:
    options = {"paths": [str(file.absolute())], "trusted": True, "mapping": dict(columns)}
    return {
        "pipeline": pipeline,
        **({"base_model": base_model} if base_model else {}),
        "ingest": {
            "sources": [
                {"name": "gateway", "kind": "gateway"},
                {"name": "corrections", "kind": "files", "options": options},
            ]
        },
        "snapshot": {"rolling_share": 0.2, "frozen_share": 0.05},
        "training": {"methods": ["sft-lora"], "budget_minutes": 60},
        # The corrected answers must become less surprising. Words that match them are shown beside it.
        "evaluation": {"metrics": ["loss", "rouge_l", "chrf", "repetition", "refusal", "length"]},
        "gate": {
            "primary": "loss",
            "guards": [{"metric": "repetition", "margin": 0.05}],
            "min_units": 40,
            "alpha_night": 0.05,
        },
        # Nobody uses it yet: what passes the gate answers most of the new users, and is watched.
        "canary": {"steps": [0.95], "minimum_seconds": 86400, "deadline_seconds": 1814400},
    }


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    try:
        yield from _read_rows(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _read_rows(file: Path) -> Iterable[dict[str, Any]]:
    if file.suffix.lower() == ".csv":
        with file.open(newline="", encoding="utf-8") as lines:
            yield from csv.DictReader(lines)
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}:{number}: not JSON ({error}); expected one object a line") from None
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number}: got a {type(row).__name__}, expected an object with columns")
            yield row
