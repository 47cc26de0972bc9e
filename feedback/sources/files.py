"""Files of feedback: JSONL, CSV and Parquet on this machine, by path or pattern, with a declared column mapping.

Without a mapping a JSONL line is events as Ratchet writes them: `{"interaction": {...}}`, `{"feedback": {...}}` or
both. With one, each row makes an interaction (its prompt and answer) and one feedback for each kind that is mapped and
not empty. A row that cannot be read is a reject with its reason; the rows around it are taken.

JSONL files may grow: only what was added is read. Files of other formats are read again when they change; rows known
already are recognised by their event ids (from a column, else the hash of the row).
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from feedback.sources.landing import RAW_CHARS, Lot, Reject
from feedback.sources.mapping import RowOptions, events_of
from infra.errors import UserError


class Options(RowOptions):
    """Options of a files source."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or patterns, such as exports/*.jsonl."""
    format: Literal["auto", "jsonl", "csv", "parquet"] = "auto"
    """auto goes by the file's ending."""
    max_row_bytes: int = Field(default=1_000_000, ge=1_000)
    """Longest row."""
    settle_seconds: float = Field(default=60.0, ge=0)
    """A last line without its line end is left alone until the file has been still for so long."""
    lot: int = Field(default=1_000, ge=1)
    """Rows in one transaction."""


def read(options: Options, mark: JsonValue | None) -> Iterator[Lot]:
    """What is new in these files, in order of their names.

    Raises:
        UserError: a pattern matches no file, or a file's format is unknown.
    """
    marks: dict[str, Any] = dict(mark) if isinstance(mark, dict) else {}
    for path in _files(options):
        kind = _format(path, options)
        before = marks.get(str(path))
        if kind == "jsonl":
            rows = _jsonl(path, before, options)
        else:
            stat = path.stat()
            state = [stat.st_size, stat.st_mtime_ns]
            if before == state:
                continue
            rows = _table(path, kind, state, options)
        lot = Lot(mark=None, tenant=options.tenant)
        held = 0
        for place, row, state_after in rows:
            if isinstance(row, Reject):
                lot.rejects.append(row)
            elif row is not None:
                _add(lot, f"{path.name}:{place}", row, path, options)
            marks[str(path)] = state_after
            held += 1
            if held >= options.lot:
                lot.mark = json.loads(json.dumps(marks))
                yield lot
                lot, held = Lot(mark=None, tenant=options.tenant), 0
        if held:
            lot.mark = json.loads(json.dumps(marks))
            yield lot


Row = tuple[str, "Mapping[str, Any] | Reject | None", Any]
"""(place, row, what to remember once it is landed)"""


def _files(options: Options) -> list[Path]:
    found: set[Path] = set()
    for pattern in options.paths:
        matches = [Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)]  # noqa: PTH207
        files = [path for path in matches if path.is_file()]
        if not files and not glob.has_magic(pattern):
            raise UserError(f"feedback file {pattern} does not exist; mend `paths` of the source")
        found.update(path.absolute() for path in files)
    return sorted(found)


def _format(path: Path, options: Options) -> str:
    if options.format != "auto":
        return options.format
    known = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}
    if path.suffix.lower() not in known:
        raise UserError(f"cannot tell the format of {path} by its ending; expected one of {', '.join(known)}")
    return known[path.suffix.lower()]


def _jsonl(path: Path, before: Any, options: Options) -> Iterator[Row]:
    """Lines after the remembered offset; from the start again where the file was replaced by another."""
    head = _head(path, before["head"][0]) if isinstance(before, dict) else None
    same = isinstance(before, dict) and head == before["head"] and path.stat().st_size >= before["offset"]
    offset, number = (before["offset"], before["lines"]) if same else (0, 0)
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(options.max_row_bytes + 1):
            number += 1
            place, size = str(number), len(line)
            if size > options.max_row_bytes and not line.endswith(b"\n"):
                while rest := file.readline(1 << 20):  # skip to the line's end without holding it
                    size += len(rest)
                    if rest.endswith(b"\n"):
                        break
                row: Mapping[str, Any] | Reject | None = _reject(
                    path, place, line, "too-large", f"more than {options.max_row_bytes} bytes in one row"
                )
            else:
                row = _json_row(path, place, line)
                unfinished = not line.endswith(b"\n") and isinstance(row, Reject)
                if unfinished and time.time() - path.stat().st_mtime < options.settle_seconds:
                    return
            offset += size
            yield place, row, {"offset": offset, "lines": number, "head": _head(path, min(offset, 65_536))}


def _head(path: Path, length: int) -> list[Any]:
    with path.open("rb") as file:
        return [length, hashlib.sha256(file.read(length)).hexdigest()[:32]]


def _json_row(path: Path, place: str, line: bytes) -> Mapping[str, Any] | Reject | None:
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return _reject(path, place, line, "bad-encoding", f"not UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        return _reject(path, place, line, "bad-json", "nested too deeply")
    except ValueError as error:
        return _reject(path, place, line, "bad-json", f"not JSON: {error}")
    if not isinstance(value, dict):
        return _reject(path, place, line, "bad-row", f"a JSON object was expected, got {type(value).__name__}")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _table(path: Path, kind: str, state: list[int], options: Options) -> Iterator[Row]:
    """All rows of a CSV or Parquet file. Its state goes with the last row only: till then all is read again."""
    if kind == "csv" and options.mapping is None:
        raise UserError(f"{path}: CSV files need a `mapping` of columns")
    pending: Row | None = None
    for row in _csv(path, options) if kind == "csv" else _parquet(path, options):
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending[0], pending[1], state


def _csv(path: Path, options: Options) -> Iterator[Row]:
    csv.field_size_limit(max(options.max_row_bytes, 131_072))
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            number += 1
            place = str(number)
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, _reject(path, place, b"", "bad-csv", str(error)), None
                continue
            if header is None:
                header = cells
                if len(set(header)) != len(header):
                    raise UserError(f"{path}: a column name stands twice in the header; rename one") from None
                continue
            if not cells:
                continue
            raw = ",".join(cells).encode("utf-8", "surrogateescape")
            if len(raw) > options.max_row_bytes:
                yield place, _reject(path, place, raw, "too-large", f"{len(raw)} bytes in one row"), None
            elif len(cells) != len(header):
                message = f"{len(cells)} cells where the header has {len(header)}"
                yield place, _reject(path, place, raw, "bad-csv", message), None
            elif any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
                yield place, _reject(path, place, raw, "bad-encoding", "not UTF-8"), None
            else:
                yield place, dict(zip(header, cells, strict=True)), None


def _parquet(path: Path, options: Options) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=options.lot):
            for row in batch.to_pylist():
                number += 1
                yield str(number), row, None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield "file", _reject(path, "file", b"", "bad-parquet", f"not readable as Parquet: {error}"), None


def _reject(path: Path, place: str, raw: bytes, code: str, detail: str) -> Reject:
    where = f"{path.name}:{place}:{hashlib.sha256(raw).hexdigest()[:12]}"
    return Reject(where, code, detail, raw[:RAW_CHARS].decode("utf-8", "replace"))


def _add(lot: Lot, place: str, row: Mapping[str, Any], path: Path, options: Options) -> None:
    """Make events of a row, all or none of them."""
    raw = _shown(row)
    try:
        mtime = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        interactions, feedback = events_of(row, options, source=f"files:{path.name}"[:200], at=mtime)
    except ValidationError as error:
        first = error.errors()[0]
        detail = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        if error.error_count() > 1:
            detail += f" (and {error.error_count() - 1} more)"
        lot.rejects.append(_bad_event(place, raw, detail))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        lot.rejects.append(_bad_event(place, raw, f"{type(error).__name__}: {error}"))
    else:
        lot.interactions += interactions
        lot.feedback += feedback


def _bad_event(place: str, raw: str, detail: str) -> Reject:
    unique = hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()[:12]
    return Reject(f"{place}:{unique}", "bad-event", detail, raw)


def _shown(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str)[:RAW_CHARS]
    except (ValueError, RecursionError):
        return repr(type(row))
