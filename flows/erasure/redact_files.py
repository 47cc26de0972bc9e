"""Take a person out of derived files (reports, answers, logs, copies on MLflow), and search for what is left."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from evaluation.report.examples import EXAMPLES
from feedback.erasure.belongings import Belongings
from infra.artifact import atomic_write

GONE = "[forgotten]"
_PAGE = (
    "<!doctype html><meta charset=utf-8><title>Removed</title><p>This page held words of somebody who was forgotten.\n"
)
_TEXTS = {".jsonl", ".json", ".html", ".log", ".txt", ".csv", ".yaml", ".md", ".sent", ".runs"}
_BINARY = {".parquet", ".arrow", ".db", ".db-wal"}
SCRUBBED = frozenset(_TEXTS | {".parquet"})
"""Endings of the files that `scrub` takes words out of."""
_SET_ASIDE = ".unreadable"
"""Lots of interactions that a gateway could not land: text of users, but perhaps not whole, or not UTF-8."""


def scrub(home: Path, belongings: Belongings, *, leave: Sequence[Path]) -> dict[str, int]:
    """Rows, strings, lines or pages removed, by file, from everything below `home` but the folders in `leave`."""
    removed: dict[str, int] = {}
    for file in _files(home):
        if any(file.is_relative_to(folder) for folder in leave) or file.suffix in (".db", ".db-wal", ".arrow"):
            continue
        scrubbers = {".parquet": _scrub_parquet, _SET_ASIDE: _scrub_set_aside}
        done = scrubbers.get(file.suffix, _scrub_text)(file, belongings)
        if done:
            removed[file.relative_to(home).as_posix()] = done
    return removed


def search(home: Path, belongings: Belongings) -> tuple[int, list[str]]:
    """(files searched, files below `home` in which the person or their words still stand)."""
    raw = _raw(belongings)
    searched, left = 0, []
    for file in _files(home):
        searched += 1
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue
        rows: list[Any] = []
        if file.suffix == ".parquet" and data:
            rows = _parquet_rows(file)
            data += json.dumps(rows, default=str, ensure_ascii=False).encode()
        elif file.suffix == ".jsonl" and belongings.elsewhere:
            rows = [row for line in data.splitlines() if (row := _parsed(line)) is not None]
        # Where the pseudonym is another tenant's too, only whole rows say whose they are.
        ours = f"tenant={belongings.tenant}" if "/tenant=" in file.as_posix() else file.parent.name
        mine = belongings.elsewhere and file.parent.name == ours and any(belongings.owns(row) for row in rows)
        if mine or any(needle in data for needle in raw):
            left.append(file.relative_to(home).as_posix())
    return searched, left


def _raw(belongings: Belongings) -> list[bytes]:
    return [form.encode() for name in belongings.names for form in {name, json.dumps(name)[1:-1]}]


def _files(home: Path) -> Iterator[Path]:
    held = _TEXTS | _BINARY | {_SET_ASIDE}
    yield from (p for p in sorted(home.rglob("*")) if p.suffix in held and p.is_file() and not p.is_symlink())


def _scrub_text(file: Path, belongings: Belongings) -> int:
    try:
        text = file.read_text()
    except (UnicodeDecodeError, FileNotFoundError):
        return 0
    if file.suffix == ".jsonl":
        return _scrub_lines(file, text, belongings)
    escaped = {form for name in belongings.names for form in (name, json.dumps(name)[1:-1])}
    if file.suffix == ".json":
        phrases = belongings.phrases if file.name == EXAMPLES else frozenset()  # our own files have words of their own
        try:
            value, count = _without(json.loads(text), belongings.names, phrases)
        except ValueError:
            value, count = GONE, int(any(name in text for name in escaped))
        if count:
            atomic_write(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return count
    if file.suffix == ".html":
        shown = html.unescape(text)
        phrases = {form for phrase in belongings.phrases for form in (phrase, json.dumps(phrase)[1:-1])}
        if not any(name in text for name in escaped) and not any(phrase in shown for phrase in phrases):
            return 0
        atomic_write(file, _PAGE)
        return 1
    if not any(name in text for name in escaped):
        return 0
    lines = text.splitlines(keepends=True)
    kept = [line if not any(name in line for name in escaped) else f"{GONE}\n" for line in lines]
    atomic_write(file, "".join(kept))
    return sum(line == f"{GONE}\n" for line in kept)


def _scrub_set_aside(file: Path, belongings: Belongings) -> int:
    """Lines removed that are the person's or hold their words; what else there is of the file stays, byte by byte."""
    raw = _raw(belongings)
    lines = file.read_bytes().split(b"\n")
    kept = [line for line in lines if not any(needle in line for needle in raw) and not belongings.owns(_parsed(line))]
    if len(kept) < len(lines):
        atomic_write(file, b"\n".join(kept))
    return len(lines) - len(kept)


def _parsed(line: bytes) -> Any:
    """A line's JSON; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _scrub_lines(file: Path, text: str, belongings: Belongings) -> int:
    kept, count = [], 0
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            kept.append(line)
            continue
        if belongings.owns(row):
            count += 1
            continue
        row, replaced = _without(row, belongings.names, belongings.phrases)
        count += replaced
        kept.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) if replaced else line)
    if count:
        atomic_write(file, "".join(f"{line}\n" for line in kept))
    return count


def _without(value: Any, names: Sequence[str], phrases: Set[str]) -> tuple[Any, int]:
    """`value` with every string that holds one of the names, or is one of the phrases, replaced, and how many were."""
    if isinstance(value, str):
        theirs = any(name in value for name in names) or value.strip() in phrases
        return (GONE, 1) if theirs else (value, 0)
    if isinstance(value, list):
        pairs = [_without(inner, names, phrases) for inner in value]
        return [v for v, _ in pairs], sum(n for _, n in pairs)
    if isinstance(value, dict):
        made = {key: _without(inner, names, phrases) for key, inner in value.items()}
        return {key: v for key, (v, _) in made.items()}, sum(n for _, n in made.values())
    return value, 0


def _scrub_parquet(file: Path, belongings: Belongings) -> int:
    import polars as pl

    frame = pl.read_parquet(file)
    kept, count = [], 0
    for row in frame.to_dicts():
        if belongings.owns(row):
            count += 1
            continue
        row, replaced = _without(row, belongings.names, belongings.phrases)
        count += replaced
        kept.append(row)
    if count:
        staging = file.with_name(f".{file.name}.tmp")
        pl.DataFrame(kept, schema=frame.schema).write_parquet(staging)
        staging.replace(file)
    return count


def _parquet_rows(file: Path) -> list[Any]:
    import polars as pl

    return pl.read_parquet(file).to_dicts()
