"""Erase a person's rows from snapshots. The manifest stays; a tombstone beside it says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

from feedback.erasure.belongings import Belongings
from feedback.snapshots.layout import read_manifest
from feedback.store.tombstones import name_hash
from infra.artifact import atomic_write, digest_file
from infra.stored_model import Stored

TOMBSTONE = "forgotten.json"


class SnapshotTombstone(Stored):
    """What was taken out of a snapshot."""

    persons: dict[str, dict[str, int]] = {}
    """Hash of a person's name -> rows by part."""
    digests: dict[str, list[str]] = {}
    """By part, what its file's digest was before each time."""


def erase_from_snapshots(snapshots_dir: Path, belongings: Belongings) -> dict[str, dict[str, int]]:
    """Remove a person's rows from each snapshot that holds any. Returns rows removed, by snapshot and part."""
    held: dict[str, dict[str, int]] = {}
    for folder in sorted(snapshots_dir.glob("s-*")):
        if read_manifest(folder).identity.tenant != belongings.tenant:
            continue
        removed: dict[str, int] = {}
        for file in sorted(folder.rglob("*.jsonl")):
            lines = [line for line in file.read_text().splitlines(keepends=True) if line.strip()]
            kept = [line for line in lines if not belongings.owns(json.loads(line))]
            if len(kept) < len(lines):
                part = file.relative_to(folder).as_posix()
                removed[part] = len(lines) - len(kept)
                person = name_hash(belongings.tenant, belongings.person)
                _note(folder, person, part, removed[part], digest_file(file))
                atomic_write(file, "".join(kept))
        if removed:
            held[folder.name] = removed
    return held


def digests_of(snapshot: Path) -> dict[str, set[str]]:
    """Return, by part, every digest that its file had since it was cut: stages name the bytes they were trained on."""
    digests = {part: {digest} for part, digest in read_manifest(snapshot).identity.files.items()}
    tombstone = _read(snapshot)
    if tombstone is not None:
        for part, earlier in tombstone.digests.items():
            digests.setdefault(part, set()).update(earlier)
        for part in digests:
            if (snapshot / part).exists():
                digests[part].add(digest_file(snapshot / part))
    return digests


def erased_rows(snapshot: Path, person: str | None = None) -> dict[str, int]:
    """Count the rows taken out of a snapshot, by part: of the person with that hash, or of everybody."""
    tombstone, counts = _read(snapshot), dict[str, int]()
    for hashed, parts in tombstone.persons.items() if tombstone is not None else ():
        if person in (None, hashed):
            counts = {part: counts.get(part, 0) + parts.get(part, 0) for part in {*counts, *parts}}
    return counts


def _read(snapshot: Path) -> SnapshotTombstone | None:
    file = snapshot / TOMBSTONE
    return SnapshotTombstone.model_validate_json(file.read_bytes()) if file.exists() else None


def _note(snapshot: Path, person: str, part: str, rows: int, digest: str) -> None:
    """Remember what is about to be taken, and what the file was before."""
    tombstone = _read(snapshot) or SnapshotTombstone()
    theirs = dict(tombstone.persons.get(person, {}))
    theirs[part] = theirs.get(part, 0) + rows
    earlier = tombstone.digests.get(part, [])
    update = {
        "persons": {**tombstone.persons, person: theirs},
        "digests": {**tombstone.digests, part: earlier if digest in earlier else [*earlier, digest]},
    }
    atomic_write(snapshot / TOMBSTONE, json.dumps(tombstone.model_copy(update=update).model_dump(), indent=2) + "\n")
