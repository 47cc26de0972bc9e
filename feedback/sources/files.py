"""Files of feedback: JSONL, JSON, CSV, Parquet and plain text, on this machine or by fsspec URL (s3://bucket/*.jsonl).

Without a mapping a row is recognised by its form: events as Ratchet writes them (`{"interaction": {...}}`,
`{"feedback": {...}}` or both), or one of the dialects of feedback/formats/. With a mapping, each row makes an
interaction (its prompt and answer) and one feedback for each kind that is mapped and not empty. A row that cannot be
read is a reject with its reason; the rows around it are taken. Plain text is documents, one a paragraph or line.

JSONL files may grow: only what was added is read. Files of other formats are read again when they change; rows known
already are recognised by their event ids (from a column, else the hash of the row).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from feedback.sources.landing import RAW_CHARS, Lot, Reject
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
    """What is new in these files, in order of their names.

    Raises:
        UserError: a pattern matches no file, or a file's format is unknown.
    """
    watermarks: dict[str, Any] = dict(watermark) if isinstance(watermark, dict) else {}
    for file in stored_files(options.paths, endpoint_url=options.endpoint_url):
        kind = _format(file, options)
        before = watermarks.get(file.address)
        if kind != "jsonl" and before == file.state:
            continue
        rows = _jsonl(file, before, options) if kind == "jsonl" else _whole(file, kind, options)
        lot = Lot(watermark=None, tenant=options.tenant)
        held = 0
        for place, row, state_after in rows:
            if isinstance(row, Reject):
                lot.rejects.append(row)
            elif row is not None:
                _add(lot, f"{file.name}:{place}", row, file, options)
            watermarks[file.address] = state_after
            held += 1
            if held >= options.lot:
                yield _closed(lot, watermarks, file, kind)
                lot, held = Lot(watermark=None, tenant=options.tenant), 0
        if held:
            yield _closed(lot, watermarks, file, kind)


def _closed(lot: Lot, watermarks: dict[str, Any], file: StoredFile, kind: str) -> Lot:
    if kind == "jsonl":
        state = watermarks[file.address]
        watermarks[file.address] = {**state, "head": _head(file, min(state["offset"], 65_536))}
    lot.watermark = json.loads(json.dumps(watermarks))
    return lot


Row = tuple[str, "Mapping[str, Any] | Reject | None", Any]
"""(place, row, what to remember once it is landed)"""


def _format(file: StoredFile, options: FileOptions) -> str:
    if options.format != "auto":
        return options.format
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


def _jsonl(file: StoredFile, before: Any, options: FileOptions) -> Iterator[Row]:
    """Lines after the remembered offset; from the start again where the file was replaced by another."""
    head = _head(file, before["head"][0]) if isinstance(before, dict) else None
    same = isinstance(before, dict) and head == before["head"] and file.size >= before["offset"]
    offset, number = (before["offset"], before["lines"]) if same else (0, 0)
    if same and offset == file.size:
        return
    with file.open() as opened:
        opened.seek(offset)
        while line := opened.readline(options.max_row_bytes + 1):
            number += 1
            place, size = str(number), len(line)
            if size > options.max_row_bytes and not line.endswith(b"\n"):
                while rest := opened.readline(1 << 20):  # skip to the line's end without holding it
                    size += len(rest)
                    if rest.endswith(b"\n"):
                        break
                row: Mapping[str, Any] | Reject | None = _reject(
                    file, place, line, "too-large", f"more than {options.max_row_bytes} bytes in one row"
                )
            else:
                row = _json_row(file, place, line)
                unfinished = not line.endswith(b"\n") and isinstance(row, Reject)
                if unfinished and time.time() - file.modified.timestamp() < options.settle_seconds:
                    return
            offset += size
            yield place, row, {"offset": offset, "lines": number}


def _head(file: StoredFile, length: int) -> list[Any]:
    with file.open() as opened:
        return [length, hashlib.sha256(opened.read(length)).hexdigest()[:32]]


def _json_row(file: StoredFile, place: str, line: bytes) -> Mapping[str, Any] | Reject | None:
    if not line.strip():
        return None
    try:
        value = _DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return _reject(file, place, line, "bad-encoding", f"not UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        return _reject(file, place, line, "bad-json", "nested too deeply")
    except ValueError as error:
        return _reject(file, place, line, "bad-json", f"not JSON: {error}")
    return _object(file, place, line, value)


def _object(file: StoredFile, place: str, raw: bytes, value: Any) -> Mapping[str, Any] | Reject:
    if not isinstance(value, dict):
        return _reject(file, place, raw, "bad-row", f"a JSON object was expected, got {type(value).__name__}")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)


def _whole(file: StoredFile, kind: str, options: FileOptions) -> Iterator[Row]:
    """All rows of a file that cannot be gone on with. Its state goes with the last row only: till then all is read
    again."""
    readers = {"csv": _csv, "parquet": _parquet, "json": _json, "text": _text}
    pending: Row | None = None
    for row in readers[kind](file, options):
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending[0], pending[1], file.state


def _json(file: StoredFile, options: FileOptions) -> Iterator[Row]:
    """The objects of a JSON array, or a single one. Of a broken array those before the break are taken."""
    with file.open() as opened:
        raw = opened.read()
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        detail = f"not UTF-8: {error.reason} at byte {error.start}"
        yield "file", _reject(file, "file", raw[:RAW_CHARS], "bad-encoding", detail), None
        return
    array = text.startswith("[")
    at, number, end = (1 if array else 0), 0, len(text)
    while True:
        while at < end and text[at] in " \t\r\n,":
            at += 1
        if at >= end and not array:
            return
        if array and at < end and text[at] == "]":
            return
        number += 1
        start = at
        try:
            if at >= end:
                raise ValueError("the file ends within the array")
            value, at = _DECODER.raw_decode(text, at)
        except RecursionError:
            yield (
                str(number),
                _reject(file, str(number), text[start : start + 200].encode(), "bad-json", "nested too deeply"),
                None,
            )
            return
        except ValueError as error:
            shown = text[start : start + RAW_CHARS].encode()
            yield str(number), _reject(file, str(number), shown, "bad-json", f"not JSON from here on: {error}"), None
            return
        piece = text[start : min(at, start + RAW_CHARS)].encode("utf-8", "replace")
        if at - start > options.max_row_bytes:
            yield (
                str(number),
                _reject(file, str(number), piece, "too-large", f"{at - start} characters in one row"),
                None,
            )
        else:
            yield str(number), _object(file, str(number), piece, value), None


def _text(file: StoredFile, options: FileOptions) -> Iterator[Row]:
    """Documents, parted by empty lines, or one a line where no line is empty; long ones cut at ends of sentences."""
    with file.open() as opened:
        raw = opened.read()
    text = raw.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")
    number = 0
    for document in re.split(r"\n[ \t]*\n" if re.search(r"\n[ \t]*\n", text) else r"\n", text):
        for piece in _pieces(document.strip(), _DOCUMENT_CHARS):
            number += 1
            place = str(number)
            if any("\udc80" <= letter <= "\udcff" for letter in piece):
                shown = piece.encode("utf-8", "surrogateescape")
                yield place, _reject(file, place, shown, "bad-encoding", "not UTF-8"), None
            else:
                yield place, {"text": piece}, None


def _pieces(text: str, most: int) -> Iterator[str]:
    """The text in pieces of at most `most` characters, cut after a sentence, else a word, else anywhere."""
    while len(text) > most:
        ends = [text.rfind(end, most // 2, most) for end in ("\n", ". ", "! ", "? ", "\u3002")]
        cut = max(ends) + 1 if max(ends) > 0 else text.rfind(" ", most // 2, most)
        cut = cut if cut > 0 else most
        yield text[:cut].strip()
        text = text[cut:].strip()
    if text:
        yield text


_DOCUMENT_CHARS = 20_000


def _csv(file: StoredFile, options: FileOptions) -> Iterator[Row]:
    csv.field_size_limit(max(options.max_row_bytes, 131_072))
    with file.open() as opened:
        text = io.TextIOWrapper(opened, newline="", encoding="utf-8-sig", errors="surrogateescape")
        reader = csv.reader(text, strict=True)
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
                yield place, _reject(file, place, b"", "bad-csv", str(error)), None
                continue
            if header is None:
                header = cells
                twice = next((name for name in header if header.count(name) > 1), None)
                if twice is not None:
                    message = f"the column name {twice!r} stands twice in the header; rename one"
                    yield (
                        place,
                        _reject(file, place, ",".join(cells).encode("utf-8", "replace"), "bad-csv", message),
                        None,
                    )
                    return
                continue
            if not cells:
                continue
            raw = ",".join(cells).encode("utf-8", "surrogateescape")
            if len(raw) > options.max_row_bytes:
                yield place, _reject(file, place, raw, "too-large", f"{len(raw)} bytes in one row"), None
            elif len(cells) != len(header):
                message = f"{len(cells)} cells where the header has {len(header)}"
                yield place, _reject(file, place, raw, "bad-csv", message), None
            elif any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
                yield place, _reject(file, place, raw, "bad-encoding", "not UTF-8"), None
            else:
                yield place, dict(zip(header, cells, strict=True)), None


def _parquet(file: StoredFile, options: FileOptions) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as opened:
            number = 0
            for batch in pq.ParquetFile(opened).iter_batches(batch_size=options.lot):
                yield from _rows_of(file, batch, number)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield "file", _reject(file, "file", b"", "bad-parquet", f"not readable as Parquet: {error}"), None


def _rows_of(file: StoredFile, batch: Any, before: int) -> Iterator[Row]:
    """The rows of a batch of Parquet; where Python has no value for a cell, such as a time in the year 10000, all rows
    but those with such cells."""
    try:
        rows: list[Mapping[str, Any] | None] = batch.to_pylist()
    except (ValueError, OverflowError):
        rows = [None] * batch.num_rows
    for at, row in enumerate(rows):
        place = str(before + at + 1)
        if row is not None:
            yield place, row, None
            continue
        cells, wrong = {}, []
        for name in batch.schema.names:
            try:
                cells[name] = batch[name][at].as_py()
            except (ValueError, OverflowError) as error:
                wrong.append(f"{name}: {error}")
        bad = _reject(file, place, _shown(cells).encode("utf-8", "replace"), "bad-parquet", "; ".join(wrong))
        yield place, bad if wrong else cells, None


def _reject(file: StoredFile, place: str, raw: bytes, code: str, detail: str) -> Reject:
    where = f"{file.name}:{place}:{hashlib.sha256(raw).hexdigest()[:12]}"
    return Reject(where, code, detail, raw[:RAW_CHARS].decode("utf-8", "replace"))


def _add(lot: Lot, place: str, row: Mapping[str, Any], file: StoredFile, options: FileOptions) -> None:
    add_row(lot, place, row, options, source=f"files:{file.name}", at=file.modified)


def add_row(lot: Lot, place: str, row: Mapping[str, Any], options: RowOptions, *, source: str, at: datetime) -> None:
    """Make events of a row, all or none of them; a reject with its reason where that cannot be done."""
    raw = _shown(row)
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


def _shown(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str)[:RAW_CHARS]
    except (ValueError, RecursionError):
        return repr(type(row))
