"""Lay out a snapshot on disk: training files in one folder, gate files in another, and the manifest over them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from infra.artifact import key_of
from infra.settings import Config
from infra.stored_model import Stored, refuse_newer

TRAIN, VALIDATION = "training/train.jsonl", "training/validation.jsonl"
GATE_FILES = {"rolling": "gate/rolling.jsonl", "frozen": "gate/frozen.jsonl"}
SHOWN = "shown/validation.jsonl"
MANIFEST = "manifest.json"


class SnapshotIdentity(Stored):
    """What makes a snapshot this one: its id is the hash of this."""

    algorithm: int = 1
    """How the lake is split."""
    tenant: str
    """Whose data it is."""
    config: Mapping[str, JsonValue] = {}
    """Config of the split."""
    files: Mapping[str, str]
    """Hash of each file."""

    @property
    def key(self) -> str:
        """Hash of it, as it was written."""
        return key_of(self.model_dump(mode="json", exclude_unset=True))


class SnapshotManifest(Stored):
    """What a snapshot holds."""

    identity: SnapshotIdentity
    counts: dict[str, dict[str, int]] = {}
    """Rows by part (train, validation: by shape; rolling, frozen: items and groups)."""
    removed: dict[str, int] = {}
    """Rows that are in no part, by reason."""


def read_manifest(snapshot: Path) -> SnapshotManifest:
    """Read the manifest in a snapshot's folder.

    Raises:
        NewerForm: a later release wrote it.
    """
    manifest = json.loads((snapshot / MANIFEST).read_text())
    refuse_newer("snapshot", manifest.get("form", 1), str(snapshot / MANIFEST))
    return SnapshotManifest.model_validate(manifest)


class Snapshot(Config):
    """An immutable cut of the lake."""

    id: str
    """Hash of its manifest."""
    tenant: str
    """Whose data it is."""
    path: Path
    """Its folder."""
    digest: str
    """Hash of all its bytes."""
    counts: dict[str, dict[str, int]]
    """Rows by part (train, validation: by shape; rolling, frozen: items and groups)."""
    removed: dict[str, int] = {}
    """Rows that are in no part, by reason."""

    @property
    def train(self) -> Path:
        """JSONL of Example."""
        return self.path / TRAIN

    @property
    def validation(self) -> Path:
        """JSONL of Example."""
        return self.path / VALIDATION
