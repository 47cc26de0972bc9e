"""Recover splits that `firewall.db` has lost: restored from a backup alone, it is behind its own snapshots.

Training and gate are kept apart for good by what it remembers, so a cut with one that is behind could examine a version
on what an earlier one was trained on. The snapshots beside it say the same: their rows name their groups, their gate
files the prompts that were examined. Only how often an item was used by verdicts cannot be read from them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from feedback.examples import user_text
from feedback.snapshots.gate_items import GateItem
from feedback.snapshots.layout import GATE_FILES, TRAIN, VALIDATION, read_manifest
from feedback.snapshots.splits import SplitStore
from infra.artifact import read_record

log = logging.getLogger(__name__)
_FILES = {"train": TRAIN, "validation": VALIDATION, **GATE_FILES}
"""Part -> file of a snapshot whose rows are in it."""


def recover_splits(splits: SplitStore, snapshots_dir: Path, tenant: str) -> int:
    """Put back what the tenant's snapshots hold, where the store does not know the newest one. Returns how many groups
    it had forgotten."""
    snapshots = list(_snapshots(snapshots_dir, tenant))
    if not snapshots or splits.knows(tenant, {g for groups in _parts(snapshots[-1]).values() for g in groups}):
        return 0
    forgotten = 0
    for snapshot in snapshots:  # the oldest first: the first assignment holds
        for part, groups in _parts(snapshot).items():
            forgotten += splits.learn(tenant, sorted(groups), part)
        for part in GATE_FILES:
            items = [GateItem.model_validate_json(row) for row in _lines(snapshot / GATE_FILES[part])]
            splits.remember_prompts(tenant, [user_text(item.messages) for item in items])
            if part == "frozen":
                splits.freeze(tenant, [item.item_id for item in items], len(items))
    log.warning(
        "firewall.db of %s was behind its snapshots: %s groups of %s put back", snapshots_dir, forgotten, tenant
    )
    return forgotten


def _snapshots(snapshots_dir: Path, tenant: str) -> Iterator[Path]:
    """Folders of the tenant's finished snapshots, the oldest first."""
    made = [(record.created_at, path) for path in snapshots_dir.glob("s-*") if (record := read_record(path))]
    for _, path in sorted(made):
        if read_manifest(path).identity.tenant == tenant:
            yield path


def _parts(snapshot: Path) -> dict[str, set[str]]:
    """Part -> groups that have rows in it."""
    return {part: {str(json.loads(row)["group"]) for row in _lines(snapshot / file)} for part, file in _FILES.items()}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
