"""Read files of feedback: JSONL, JSON, CSV, Parquet and plain text, here or by fsspec URL (s3://bucket/*.jsonl).

Without a mapping a row is recognised by its form: events as Ratchet writes them (`{"interaction": {...}}`,
`{"feedback": {...}}` or both), or one of the dialects of feedback/formats/. With a mapping, each row makes an
interaction (its prompt and answer) and one feedback for each kind that is mapped and not empty. A row that cannot be
read is a reject with its reason; the rows around it are taken. Plain text is documents, one a paragraph or line.

JSONL files may grow: only what was added is read. Files of other formats are read again when they change; rows known
already are recognised by their event ids (from a column, else the hash of the row).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from feedback.formats import Row
from feedback.sources.file_rows import Bounds, jsonl_rows, shown, whole_rows, with_head
from feedback.sources.landing import Lot, Reject
from feedback.sources.mapping import RowOptions, events_of
from feedback.sources.storage import StoredFile, stored_files
from infra.errors import UserError


class FileOptions(RowOptions):
    """Options of everything that is read from files."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or patterns, such as exports/*.jsonl or s3://bucket/exports/*.parquet."""
    format: Literal["auto", "jsonl", "json", "csv", "parquet", "text"] = "auto"
    """auto goes by the file's ending."""
    endpoint_url: str | None = None
    """Address of an S3-compatible store that is not Amazon's."""
    max_row_bytes: int = Field(default=1_000_000, ge=1_000)
    """Longest row."""
    settle_seconds: float = Field(default=60.0, ge=0)
    """A last line without its line end is left alone until the file has been still for so long."""
    lot: int = Field(default=1_000, ge=1)
    """Rows in one transaction."""


class Options(FileOptions):
    """Options of a files source."""


def read(options: FileOptions, watermark: JsonValue | None) -> Iterator[Lot]:
    """Read what is new in these files, in order of their names.

    Raises:
        UserError: a pattern matches no file, or a file's format is unknown.
    """
    bounds = Bounds(options.max_row_bytes, options.settle_seconds, options.lot)
    states: dict[str, JsonValue] = dict(watermark) if isinstance(watermark, dict) else {}
    for file in stored_files(options.paths, endpoint_url=options.endpoint_url):
        kind = _format(file, options.format)
        earlier = states.get(file.address)
        if kind != "jsonl" and earlier == file.state:
            continue
        rows = jsonl_rows(file, earlier, bounds) if kind == "jsonl" else whole_rows(file, kind, bounds)
        lot = Lot(watermark=None, tenant=options.tenant)
        held = 0
        for place, row, state_after in rows:
            if isinstance(row, Reject):
                lot.rejects.append(row)
            elif row is not None:
                add_row(lot, f"{file.name}:{place}", row, options, source=f"files:{file.name}", at=file.modified)
            states[file.address] = state_after
            held += 1
            if held >= options.lot:
                yield _closed(lot, states, file, kind)
                lot, held = Lot(watermark=None, tenant=options.tenant), 0
        if held:
            yield _closed(lot, states, file, kind)


def _closed(lot: Lot, states: dict[str, JsonValue], file: StoredFile, kind: str) -> Lot:
    state = states[file.address]
    if kind == "jsonl":
        states[file.address] = with_head(file, state)
    lot.watermark = json.loads(json.dumps(states))
    return lot


def _format(file: StoredFile, named: str) -> str:
    if named != "auto":
        return named
    known = {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".json": "json",
        ".csv": "csv",
        ".parquet": "parquet",
        ".pq": "parquet",
        ".txt": "text",
    }
    ending = "." + file.name.lower().rpartition(".")[2]
    if ending not in known:
        raise UserError(f"cannot tell the format of {file.address} by its ending; expected one of {', '.join(known)}")
    return known[ending]


def add_row(lot: Lot, place: str, row: Row, options: RowOptions, *, source: str, at: datetime) -> None:
    """Make events of a row, all or none of them; a reject with its reason where that cannot be done."""
    raw = shown(row)
    try:
        interactions, feedback = events_of(row, options, source=source[:200], at=at)
    except ValidationError as error:
        first = error.errors()[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        if error.error_count() > 1:
            detail += f" (and {error.error_count() - 1} more)"
        lot.rejects.append(_bad_event(place, raw, detail))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        lot.rejects.append(_bad_event(place, raw, f"{type(error).__name__}: {error}"))
    else:
        lot.interactions += interactions
        lot.feedback += feedback


def _bad_event(place: str, raw: str, detail: str) -> Reject:
    unique = hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()[:12]
    return Reject(f"{place}:{unique}", "bad-event", detail, raw)
