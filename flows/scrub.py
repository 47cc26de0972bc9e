"""Take a person out of derived files (reports, answers, logs, copies on MLflow), and search for what is left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from feedback.forget import Belongings
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


def scrub(home: Path, found: Belongings, *, leave: Sequence[Path]) -> dict[str, int]:
    """Rows, strings, lines or pages removed, by file, from everything below `home` but the folders in `leave`."""
    removed: dict[str, int] = {}
    for file in _files(home):
        if any(file.is_relative_to(folder) for folder in leave) or file.suffix in (".db", ".db-wal", ".arrow"):
            continue
        scrubbers = {".parquet": _scrub_parquet, _SET_ASIDE: _scrub_set_aside}
        done = scrubbers.get(file.suffix, _scrub_text)(file, found)
        if done:
            removed[file.relative_to(home).as_posix()] = done
    return removed


def search(home: Path, found: Belongings) -> tuple[int, list[str]]:
    """(files searched, files below `home` in which the person or their words still stand)."""
    needles = [found.person, *found.needles]
    raw = [form.encode() for needle in needles for form in {needle, json.dumps(needle)[1:-1]}]
    searched, left = 0, []
    for file in _files(home):
        searched += 1
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue
        if file.suffix == ".parquet" and data:
            data += _parquet_text(file).encode()
        if any(needle in data for needle in raw):
            left.append(file.relative_to(home).as_posix())
    return searched, left


def _files(home: Path) -> Iterator[Path]:
    held = _TEXTS | _BINARY | {_SET_ASIDE}
    yield from (p for p in sorted(home.rglob("*")) if p.suffix in held and p.is_file() and not p.is_symlink())


def _scrub_text(file: Path, found: Belongings) -> int:
    try:
        text = file.read_text()
    except (UnicodeDecodeError, FileNotFoundError):
        return 0
    needles = [found.person, *found.needles]
    escaped = {form for needle in needles for form in (needle, json.dumps(needle)[1:-1])}
    touched = any(needle in text for needle in escaped)
    if file.suffix == ".jsonl":
        return _scrub_lines(file, text, found, needles)
    if not touched:
        return 0
    if file.suffix == ".json":
        try:
            value, count = _without(json.loads(text), needles)
        except ValueError:
            value, count = GONE, 1
        atomic_write(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        return count
    if file.suffix == ".html":
        atomic_write(file, _PAGE)
        return 1
    lines = text.splitlines(keepends=True)
    kept = [line if not any(needle in line for needle in escaped) else f"{GONE}\n" for line in lines]
    atomic_write(file, "".join(kept))
    return sum(line == f"{GONE}\n" for line in kept)


def _scrub_set_aside(file: Path, found: Belongings) -> int:
    """Lines removed that are the person's or hold their words; what else there is of the file stays, byte by byte."""
    needles = [found.person, *found.needles]
    raw = [form.encode() for needle in needles for form in {needle, json.dumps(needle)[1:-1]}]
    lines = file.read_bytes().split(b"\n")
    kept = [line for line in lines if not any(needle in line for needle in raw) and not _owned(line, found)]
    if len(kept) < len(lines):
        atomic_write(file, b"\n".join(kept))
    return len(lines) - len(kept)


def _owned(line: bytes, found: Belongings) -> bool:
    try:
        return found.owns(json.loads(line))
    except (ValueError, RecursionError):
        return False


def _scrub_lines(file: Path, text: str, found: Belongings, needles: Sequence[str]) -> int:
    kept, count = [], 0
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            kept.append(line)
            continue
        if found.owns(row):
            count += 1
            continue
        row, replaced = _without(row, needles)
        count += replaced
        kept.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) if replaced else line)
    if count:
        atomic_write(file, "".join(f"{line}\n" for line in kept))
    return count


def _without(value: Any, needles: Sequence[str]) -> tuple[Any, int]:
    """`value` with every string that holds a needle replaced, and how many were."""
    if isinstance(value, str):
        return (GONE, 1) if any(needle in value for needle in needles) else (value, 0)
    if isinstance(value, list):
        pairs = [_without(inner, needles) for inner in value]
        return [v for v, _ in pairs], sum(n for _, n in pairs)
    if isinstance(value, dict):
        made = {key: _without(inner, needles) for key, inner in value.items()}
        return {key: v for key, (v, _) in made.items()}, sum(n for _, n in made.values())
    return value, 0


def _scrub_parquet(file: Path, found: Belongings) -> int:
    import polars as pl

    frame = pl.read_parquet(file)
    rows = frame.to_dicts()
    needles = [found.person, *found.needles]
    kept, count = [], 0
    for row in rows:
        if found.owns(row):
            count += 1
            continue
        row, replaced = _without(row, needles)
        count += replaced
        kept.append(row)
    if count:
        staging = file.with_name(f".{file.name}.tmp")
        pl.DataFrame(kept, schema=frame.schema).write_parquet(staging)
        staging.replace(file)
    return count


def _parquet_text(file: Path) -> str:
    import polars as pl

    return json.dumps(pl.read_parquet(file).to_dicts(), default=str, ensure_ascii=False)
