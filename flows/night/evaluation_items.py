"""Write a night's evaluation items: the gate's, and those that people may be shown."""

from __future__ import annotations

from pathlib import Path

from feedback.snapshots.gate_items import gate_items, shown_items
from feedback.snapshots.snapshot import Snapshot
from infra.artifact import atomic_write, canonical_json


def write_evaluation_items(snapshot: Snapshot, folder: Path) -> int:
    """Write `items.jsonl` and `shown.jsonl` into a night's folder; return the number of gate items.

    Written once: how often an item was used before must not change when the night is resumed.
    """
    items, shown = folder / "items.jsonl", folder / "shown.jsonl"
    if not items.exists():
        atomic_write(shown, "".join(canonical_json(item) + "\n" for item in shown_items(snapshot)))
        atomic_write(items, "".join(canonical_json(item) + "\n" for item in gate_items(snapshot)))
    return len(items.read_text().splitlines())
