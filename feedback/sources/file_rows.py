"""Read the rows of one file: JSONL, JSON, CSV, Parquet, plain text. A row that cannot be read is a reject.

JSONL files may grow: only what was added is read. Others are read whole.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import JsonValue

from feedback.formats import Cells, Row
from feedback.sources.landing import RAW_CHARS, Reject
from feedback.sources.storage import StoredFile


class FileRow(NamedTuple):
    """One row of a file."""

    place: str
    """Line or number of the row."""
    row: Row | Reject | None
    """None for an empty line."""
    state: JsonValue = None
    """What to remember of the file once the row is landed."""


@dataclass(frozen=True)
class Bounds:
    """How a file is read."""

    row_bytes: int
    """Longest row."""
    settle_seconds: float
    """A last line without its line end is left alone until the file has been still for so long."""
    lot: int
    """Rows that are read at a time."""


def jsonl_rows(file: StoredFile, earlier: Any, bounds: Bounds) -> Iterator[FileRow]:
    """Read the lines after the remembered offset; from the start again where the file was replaced by another."""
    head = _head(file, earlier["head"][0]) if isinstance(earlier, dict) else None
    same = isinstance(earlier, dict) and head == earlier["head"] and file.size >= earlier["offset"]
    offset, number = (earlier["offset"], earlier["lines"]) if same else (0, 0)
    if same and offset == file.size:
        return
    with file.open() as opened:
        opened.seek(offset)
        while line := opened.readline(bounds.row_bytes + 1):
            number += 1
            place, size = str(number), len(line)
            if size > bounds.row_bytes and not line.endswith(b"\n"):
                while rest := opened.readline(1 << 20):  # skip to the line's end without holding it
                    size += len(rest)
                    if rest.endswith(b"\n"):
                        break
                row: Row | Reject | None = _reject(
                    file, place, line, "too-large", f"more than {bounds.row_bytes} bytes in one row"
                )
            else:
                row = _json_row(file, place, line)
                unfinished = not line.endswith(b"\n") and isinstance(row, Reject)
                if unfinished and time.time() - file.modified.timestamp() < bounds.settle_seconds:
                    return
            offset += size
            yield FileRow(place, row, {"offset": offset, "lines": number})


def with_head(file: StoredFile, state: Any) -> JsonValue:
    """Add to a JSONL file's state the hash of its beginning, by which another file under its name is told."""
    return {**state, "head": _head(file, min(state["offset"], 65_536))}


def _head(file: StoredFile, length: int) -> list[Any]:
    with file.open() as opened:
        return [length, hashlib.sha256(opened.read(length)).hexdigest()[:32]]


def _json_row(file: StoredFile, place: str, line: bytes) -> Row | Reject | None:
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


def _object(file: StoredFile, place: str, raw: bytes, value: Any) -> Row | Reject:
    if not isinstance(value, dict):
        return _reject(file, place, raw, "bad-row", f"a JSON object was expected, got {type(value).__name__}")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> Cells:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return cells


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_twins, parse_constant=_no_constant)


def whole_rows(file: StoredFile, kind: str, bounds: Bounds) -> Iterator[FileRow]:
    """Read all rows of a file that is not JSONL. Its state goes with the last row only: till then all is read
    again."""
    readers = {"csv": _csv, "parquet": _parquet, "json": _json, "text": _text}
    pending: FileRow | None = None
    for row in readers[kind](file, bounds):
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending._replace(state=file.state)


def _json(file: StoredFile, bounds: Bounds) -> Iterator[FileRow]:
    """The objects of a JSON array, or a single one. Of a broken array those before the break are taken."""
    with file.open() as opened:
        raw = opened.read()
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        detail = f"not UTF-8: {error.reason} at byte {error.start}"
        yield FileRow("file", _reject(file, "file", raw[:RAW_CHARS], "bad-encoding", detail))
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
            yield FileRow(
                str(number),
                _reject(file, str(number), text[start : start + 200].encode(), "bad-json", "nested too deeply"),
            )
            return
        except ValueError as error:
            excerpt = text[start : start + RAW_CHARS].encode()
            yield FileRow(
                str(number), _reject(file, str(number), excerpt, "bad-json", f"not JSON from here on: {error}")
            )
            return
        piece = text[start : min(at, start + RAW_CHARS)].encode("utf-8", "replace")
        if at - start > bounds.row_bytes:
            yield FileRow(
                str(number), _reject(file, str(number), piece, "too-large", f"{at - start} characters in one row")
            )
        else:
            yield FileRow(str(number), _object(file, str(number), piece, value))


def _text(file: StoredFile, bounds: Bounds) -> Iterator[FileRow]:
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
                excerpt = piece.encode("utf-8", "surrogateescape")
                yield FileRow(place, _reject(file, place, excerpt, "bad-encoding", "not UTF-8"))
            else:
                yield FileRow(place, {"text": piece})


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


def _csv(file: StoredFile, bounds: Bounds) -> Iterator[FileRow]:
    csv.field_size_limit(max(bounds.row_bytes, 131_072))
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
                yield FileRow(place, _reject(file, place, b"", "bad-csv", str(error)))
                continue
            if header is None:
                header = cells
                twice = next((name for name in header if header.count(name) > 1), None)
                if twice is not None:
                    message = f"the column name {twice!r} stands twice in the header; rename one"
                    yield FileRow(
                        place, _reject(file, place, ",".join(cells).encode("utf-8", "replace"), "bad-csv", message)
                    )
                    return
                continue
            if not cells:
                continue
            raw = ",".join(cells).encode("utf-8", "surrogateescape")
            if len(raw) > bounds.row_bytes:
                yield FileRow(place, _reject(file, place, raw, "too-large", f"{len(raw)} bytes in one row"))
            elif len(cells) != len(header):
                message = f"{len(cells)} cells where the header has {len(header)}"
                yield FileRow(place, _reject(file, place, raw, "bad-csv", message))
            elif any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
                yield FileRow(place, _reject(file, place, raw, "bad-encoding", "not UTF-8"))
            else:
                yield FileRow(place, dict(zip(header, cells, strict=True)))


def _parquet(file: StoredFile, bounds: Bounds) -> Iterator[FileRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open() as opened:
            number = 0
            for batch in pq.ParquetFile(opened).iter_batches(batch_size=bounds.lot):
                yield from _rows_of(file, batch, number)
                number += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield FileRow("file", _reject(file, "file", b"", "bad-parquet", f"not readable as Parquet: {error}"))


def _rows_of(file: StoredFile, batch: Any, earlier: int) -> Iterator[FileRow]:
    """The rows of a batch of Parquet; where Python has no value for a cell, such as a time in the year 10000, all rows
    but those with such cells."""
    try:
        rows: list[Row | None] = batch.to_pylist()
    except (ValueError, OverflowError):
        rows = [None] * batch.num_rows
    for at, row in enumerate(rows):
        place = str(earlier + at + 1)
        if row is not None:
            yield FileRow(place, row)
            continue
        cells, wrong = {}, []
        for name in batch.schema.names:
            try:
                cells[name] = batch[name][at].as_py()
            except (ValueError, OverflowError) as error:
                wrong.append(f"{name}: {error}")
        bad = _reject(file, place, shown(cells).encode("utf-8", "replace"), "bad-parquet", "; ".join(wrong))
        yield FileRow(place, bad if wrong else cells)


def _reject(file: StoredFile, place: str, raw: bytes, code: str, detail: str) -> Reject:
    where = f"{file.name}:{place}:{hashlib.sha256(raw).hexdigest()[:12]}"
    return Reject(where, code, detail, raw[:RAW_CHARS].decode("utf-8", "replace"))


def shown(row: Row) -> str:
    """Return a row as a reject shows it."""
    try:
        return json.dumps(row, ensure_ascii=False, default=str)[:RAW_CHARS]
    except (ValueError, RecursionError):
        return repr(type(row))
