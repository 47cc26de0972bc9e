"""Append finished pieces of an evaluation to a durable journal, one JSON line each, so that a killed run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from infra.stored_model import Stored

E = TypeVar("E", bound=Stored)


@dataclass(frozen=True)
class EntryKind(Generic[E]):
    """One kind of entry: whoever produces it says its name, its model, and what its key is made of."""

    name: str
    """First part of each key of this kind in the file."""
    model: type[E]
    """What an entry holds."""
    key: tuple[str, ...]
    """What the other parts of its key stand for, in order; the last tells the entries of one version apart."""


class Journal:
    """Append-only entries of one evaluation. A line torn by a crash is dropped, and its piece of work done again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._entries: dict[tuple[str, ...], Stored] = {}
        self._unread: dict[tuple[str, ...], dict[str, Any]] = {}
        intact = 0
        if path.exists():
            data = path.read_bytes()
            for line in data.splitlines(keepends=True):
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                self._unread[tuple(row.pop("key"))] = row
                intact += len(line)
            if intact < len(data):
                with path.open("r+b") as file:
                    file.truncate(intact)
                    os.fsync(file.fileno())

    def append(self, kind: EntryKind[E], entries: Sequence[tuple[tuple[str, ...], E]]) -> None:
        """Add finished entries by the parts of their key; on disk before this returns."""
        lines = []
        for key, entry in entries:
            row = {"key": self._key(kind, key), **entry.model_dump(mode="json")}
            lines.append(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        with self._path.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        for key, entry in entries:
            self._unread.pop(self._key(kind, key), None)
            self._entries[self._key(kind, key)] = entry

    def get(self, kind: EntryKind[E], *key: str) -> E | None:
        """Get the entry of a key, or None when that work is not done."""
        return self._entry(kind, self._key(kind, key))

    def entries(self, kind: EntryKind[E], *prefix: str) -> dict[tuple[str, ...], E]:
        """List the entries whose key begins with `prefix`, sorted by key: the key after the prefix -> entry."""
        start = (kind.name, *prefix)
        keys = [key for key in (*self._entries, *self._unread) if key[: len(start)] == start]
        return {key[len(start) :]: entry for key in sorted(keys) if (entry := self._entry(kind, key)) is not None}

    def by_item(self, kind: EntryKind[E], *prefix: str) -> dict[str, E]:
        """List the same by the last part of their key, which names the item."""
        return {key[-1]: entry for key, entry in self.entries(kind, *prefix).items()}

    def _key(self, kind: EntryKind[E], key: tuple[str, ...]) -> tuple[str, ...]:
        assert len(key) == len(kind.key), f"an entry of kind {kind.name} has the key {kind.key}, got {key}"
        return (kind.name, *key)

    def _entry(self, kind: EntryKind[E], key: tuple[str, ...]) -> E | None:
        """An entry, read from its JSON when it is first wanted."""
        if key in self._unread:
            self._entries[key] = kind.model.model_validate(self._unread.pop(key))
        entry = self._entries.get(key)
        assert entry is None or isinstance(entry, kind.model)
        return entry
