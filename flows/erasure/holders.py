"""Find what held rows of a person: snapshots, and the training stages and versions that learned from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.versions.provenance import stages_on, versions_of, with_later_stages
from feedback.erasure.belongings import Belongings
from feedback.erasure.snapshots import digests_of, erased_rows
from feedback.snapshots.layout import TRAIN, VALIDATION, read_manifest
from feedback.store.tombstones import name_hash
from infra.settings import Places


@dataclass(frozen=True)
class Holders:
    """What held rows of a person, and learned from them."""

    rows: Mapping[str, int]
    """Rows by snapshot."""
    stages: tuple[str, ...]
    """Keys of the training stages that learned from these snapshots."""
    versions: tuple[str, ...]
    """Versions that did."""

    @property
    def snapshots(self) -> tuple[str, ...]:
        return tuple(sorted(self.rows))


def find_holders(places: Places, belongings: Belongings) -> Holders:
    """Find the snapshots with a tombstone or rows of the person, and the stages and versions that trained on them."""
    mark = name_hash(belongings.tenant, belongings.person)
    rows: dict[str, int] = {}
    digests: set[str] = set()
    for folder in sorted(places.snapshots_dir.glob("s-*")):
        if read_manifest(folder).identity.tenant != belongings.tenant:
            continue
        parts = erased_rows(folder, mark)
        for file in folder.rglob("*.jsonl"):
            here = sum(belongings.owns(json.loads(line)) for line in file.read_text().splitlines() if line.strip())
            part = file.relative_to(folder).as_posix()
            parts[part] = parts.get(part, 0) + here
        if sum(parts.values()):
            rows[folder.name] = sum(parts.values())
            had = digests_of(folder)
            digests |= {digest for part in (TRAIN, VALIDATION) if parts.get(part) for digest in had[part]}
    tainted = with_later_stages(places, stages_on(places, digests))
    return Holders(
        rows=rows,
        stages=tuple(sorted(key for key in tainted if (places.stages_dir / key).is_dir())),
        versions=tuple(versions_of(places, tainted, digests)),
    )
