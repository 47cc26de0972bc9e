"""Where the parts of a snapshot lie: training files in one folder, gate files in another."""

from __future__ import annotations

from pathlib import Path

from infra.settings import Config

TRAIN, VALIDATION = "training/train.jsonl", "training/validation.jsonl"
GATE_FILES = {"rolling": "gate/rolling.jsonl", "frozen": "gate/frozen.jsonl"}
SHOWN = "shown/validation.jsonl"
MANIFEST = "manifest.json"


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
