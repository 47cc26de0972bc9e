"""Cut an immutable, content-addressed snapshot of the lake, with training and gate kept apart by group.

    <snapshots>/<id>/training/{train,validation}.jsonl   Example rows, all that training may open
                     gate/{rolling,frozen}.jsonl          GateItem rows, for the evaluation only
                     shown/validation.jsonl               items people may look at
                     manifest.json record.json

The id is the hash of the manifest, which names tenant, config and the hash of each file: the same rows and config
give the same id, wherever and whenever they are cut.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path

from pydantic import Field, model_validator

from feedback.duplicates.fingerprints import prompt_text
from feedback.examples import SHAPES, Example
from feedback.lake.lake import Lake
from feedback.snapshots.contamination import NEAR, NEAR_MIN_WORDS, ContaminationCheck
from feedback.snapshots.gate_items import GateItem, dated_items, items_of, newest
from feedback.snapshots.layout import (
    GATE_FILES,
    MANIFEST,
    SHOWN,
    TRAIN,
    VALIDATION,
    Snapshot,
    SnapshotIdentity,
    SnapshotManifest,
    read_manifest,
)
from feedback.snapshots.split_recovery import recover_splits
from feedback.snapshots.splits import SplitStore, prompt_hash
from infra.artifact import canonical_json, digest_dir, digest_file, finished_record, publish, read_record
from infra.database.connect import now
from infra.errors import CorruptArtifact, NotFound
from infra.settings import Config

__all__ = ["Snapshot", "SnapshotConfig", "cut_snapshot", "example_ids", "load_snapshot", "training_parts"]
_ALGORITHM = 1


class SnapshotConfig(Config):
    """How the lake is split. Shares are of groups, not rows."""

    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of groups for validation: early stopping, races, searches, what people are shown."""
    rolling_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of groups for the rolling gate."""
    frozen_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of groups from which the frozen gate is filled; once it is full they go to the rolling gate."""
    frozen_items: int = Field(default=500, ge=0)
    """Size of the frozen gate. Its items do not retire by age."""
    rolling_days: float = Field(default=90.0, gt=0)
    """Items of the rolling gate retire at this age, counted from the newest example that is not dated in the future;
    they never train."""
    retire_uses: int = Field(default=100, ge=1)
    """Items of both gates retire after this many verdicts, and new ones take the frozen gate's places; they never
    train."""
    near_gate: float = Field(default=NEAR, ge=0.5, le=1)
    """Similarity of prompts from which a training row counts as a copy of a gate item and is removed."""
    near_min_words: int = Field(default=NEAR_MIN_WORDS, ge=3)
    """Prompts with fewer words are compared exactly only."""
    explored_weight: float = Field(default=2.0, ge=1, le=10)
    """How much more a training row weighs whose answer was shown by exploration (canary, arena), so that what the
    champion would not have said is not drowned by its own taste. Inverse propensity in spirit, but bounded: few rows
    with the large weights of their true odds would teach noise, while at 2 weighing never costs more than a ninth of
    the effective number of rows, whatever share of them was explored. References, which nobody was shown, keep weight
    1, and so does validation. Objectives that sample (grpo, ppo, rloo) make their own answers and have no use for it;
    1 turns it off."""
    salt: str = Field(default="ratchet", min_length=1)
    """Salt of the split's hash. A new one changes the part of new groups only."""

    @model_validator(mode="after")
    def _leaves_training(self) -> SnapshotConfig:
        kept = self.validation_share + self.rolling_share + self.frozen_share
        if kept > 0.9:
            raise ValueError(f"validation, rolling and frozen shares add up to {kept:.2f}; at most 0.9 leaves training")
        return self


def cut_snapshot(lake: Lake, snapshots_dir: Path, config: SnapshotConfig, *, tenant: str) -> Snapshot:
    """Cut a snapshot of a tenant's accepted examples; the same one again is found, not made.

    Raises:
        NotFound: the lake holds no accepted example of that tenant.
    """
    examples = lake.examples(tenant=tenant)
    if not examples:
        raise NotFound(f"the lake at {lake.path} holds no accepted example of tenant {tenant!r}; ingest feedback first")
    staging = snapshots_dir / f".staging-{uuid.uuid4().hex}"
    try:
        return _publish(snapshots_dir, staging, config, tenant, _split(examples, snapshots_dir, config, tenant))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def load_snapshot(path: Path) -> Snapshot:
    """Load the snapshot in a folder.

    Raises:
        NotFound: there is no finished snapshot.
        CorruptArtifact: its record says something else than its manifest.
    """
    record = read_record(path)
    if record is None:
        raise NotFound(f"{path} is no finished snapshot: no record.json; cut one with `ratchet data cut`")
    manifest = read_manifest(path)
    if manifest.identity.key != record.key:
        raise CorruptArtifact(
            f"{path}: the manifest was changed after the snapshot was cut; restore it or cut it again"
        )
    return Snapshot(
        id=record.name,
        tenant=manifest.identity.tenant,
        path=path,
        digest=record.digest,
        counts=manifest.counts,
        removed=manifest.removed,
    )


def example_ids(snapshot: Snapshot, shapes: Collection[str] = SHAPES) -> list[str]:
    """Return the ids of its training examples of these shapes."""
    rows = (json.loads(line) for line in snapshot.train.read_text().splitlines() if line)
    return [str(row["example_id"]) for row in rows if row["shape"] in shapes]


def training_parts(snapshot: Snapshot) -> tuple[Path, Path]:
    """Return (train.jsonl, validation.jsonl): all that training may open."""
    return snapshot.train, snapshot.validation


class _Split:
    """The rows of each part."""

    def __init__(self) -> None:
        self.train: list[Example] = []
        self.validation: list[Example] = []
        self.rolling: list[GateItem] = []
        self.frozen: list[GateItem] = []
        self.shown: list[GateItem] = []
        self.removed: Counter[str] = Counter()


def _split(examples: Sequence[Example], snapshots_dir: Path, config: SnapshotConfig, tenant: str) -> _Split:
    out = _Split()
    latest = newest(examples, now())
    oldest = latest - timedelta(days=config.rolling_days)
    shares = {
        "validation": config.validation_share,
        "rolling": config.rolling_share,
        "frozen": config.frozen_share,
    }
    with SplitStore(snapshots_dir) as splits:
        recover_splits(splits, snapshots_dir, tenant)
        parts = splits.assign(tenant, (e.group for e in examples), config.salt, shares)
        uses = splits.uses(tenant)
        gate = [e for e in examples if parts[e.group] in GATE_FILES]
        admitted = [e for e in gate if e.trusted and e.shape in ("completion", "preference", "problem")]
        out.removed["not admitted to the gate"] = len(gate) - len(admitted)
        items = dated_items(admitted, "rolling", latest)
        worn = {item_id for item_id, count in uses.items() if count >= config.retire_uses}
        # Those that retired by age come last: a place is for a question of today, while there is one.
        eligible = sorted((born < oldest, born, i.item_id) for i, born in items if parts[i.group] == "frozen")
        frozen = splits.freeze(tenant, [item_id for *_, item_id in eligible], config.frozen_items, worn=worn)
        examined = splits.remember_prompts(tenant, [prompt_text(e) for e in admitted])
    for item, born in items:
        if item.item_id in frozen:
            out.frozen.append(item.model_copy(update={"part": "frozen"}))
        elif born < oldest or item.item_id in worn:
            out.removed["retired from the gate"] += 1
        else:
            out.rolling.append(item)
    # Whatever is or ever was a gate prompt, retired and unadmitted rows included, stays out of training.
    near = ContaminationCheck([prompt_text(e) for e in gate], near=config.near_gate, min_words=config.near_min_words)
    for example in examples:
        part = parts[example.group]
        if part in GATE_FILES:
            continue
        if near.holds(prompt_text(example)) or prompt_hash(prompt_text(example)) in examined:
            out.removed["near copies of gate prompts"] += 1
        else:
            if part == "validation":
                out.validation.append(example)
            else:
                out.train.append(_weighed(example, config))
    out.shown = items_of([e for e in out.validation if e.trusted and e.shape != "rated"], "validation", latest)
    return out


def _weighed(example: Example, config: SnapshotConfig) -> Example:
    """The row with the weight of an explored one, where its answer was one that users were shown."""
    if not example.explored or example.reason == "reference":
        return example
    return example.model_copy(update={"weight": example.weight * config.explored_weight})


def _publish(snapshots_dir: Path, staging: Path, config: SnapshotConfig, tenant: str, split: _Split) -> Snapshot:
    files: dict[str, Sequence[Config]] = {
        TRAIN: split.train,
        VALIDATION: split.validation,
        GATE_FILES["rolling"]: split.rolling,
        GATE_FILES["frozen"]: split.frozen,
        SHOWN: split.shown,
    }
    for name, rows in files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.writelines(canonical_json(row) + "\n" for row in rows)
    identity = SnapshotIdentity(
        algorithm=_ALGORITHM,
        tenant=tenant,
        config=config.model_dump(mode="json"),
        files={name: digest_file(staging / name) for name in files},
    )
    counts = {
        "train": _by_shape(split.train),
        "validation": _by_shape(split.validation),
        "rolling": {"items": len(split.rolling), "groups": len({i.group for i in split.rolling})},
        "frozen": {"items": len(split.frozen), "groups": len({i.group for i in split.frozen})},
    }
    removed = {reason: number for reason, number in sorted(split.removed.items()) if number}
    manifest = SnapshotManifest(identity=identity, counts=counts, removed=removed)
    (staging / MANIFEST).write_text(canonical_json(manifest) + "\n")
    name = "s-" + identity.key[:24]
    record = finished_record(
        name=name,
        key=identity.key,
        digest=digest_dir(staging),
        config=config.model_dump(mode="json"),
        result=manifest.model_dump(mode="json", include={"counts", "removed"}),
    )
    publish(staging, snapshots_dir / name, record)
    return load_snapshot(snapshots_dir / name)


def _by_shape(examples: Sequence[Example]) -> dict[str, int]:
    return dict(sorted(Counter(e.shape for e in examples).items()))
