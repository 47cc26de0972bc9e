"""The durable log of an evaluation: finished pieces of work, one JSON line each, so that a killed run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Rows:
    """Append-only rows of one evaluation. A line torn by a crash is dropped, and its piece of work done again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._rows: dict[tuple[str, ...], Row] = {}
        kept = 0
        if path.exists():
            data = path.read_bytes()
            for line in data.splitlines(keepends=True):
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                self._rows[tuple(row["key"])] = row
                kept += len(line)
            if kept < len(data):
                with path.open("r+b") as file:
                    file.truncate(kept)
                    os.fsync(file.fileno())

    def append(self, rows: Sequence[tuple[tuple[str, ...], Row]]) -> None:
        """Add finished rows by key; on disk before this returns."""
        with self._path.open("ab") as file:
            for key, row in rows:
                file.write(json.dumps({"key": key, **row}, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows.update({key: {"key": list(key), **row} for key, row in rows})

    def get(self, *key: str) -> Row | None:
        """The row of a key, or None when that work is not done."""
        return self._rows.get(key)

    def starting(self, *prefix: str) -> list[Row]:
        """Rows whose key begins with `prefix`, sorted by key."""
        found = [(key, row) for key, row in self._rows.items() if key[: len(prefix)] == prefix]
        return [row for _, row in sorted(found, key=lambda pair: pair[0])]
