"""Assign groups to training or gate for good (train/eval leakage guard), whatever later configs say.

A group's part is a pure function of its salted hash. The first assignment of each group is also written down (SQLite,
beside the snapshots) and holds for ever, so that changed shares or salt never move a group that was once examined
into training, or one that was trained on into the gate.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from feedback.text.vocabulary import words_of
from infra.stored_model import refuse_newer

_SCHEMA = """
CREATE TABLE IF NOT EXISTS part (
    tenant TEXT NOT NULL, grp TEXT NOT NULL, part TEXT NOT NULL, PRIMARY KEY (tenant, grp)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frozen (
    tenant TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (tenant, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examined (
    tenant TEXT NOT NULL, prompt BLOB NOT NULL, PRIMARY KEY (tenant, prompt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used (
    tenant TEXT NOT NULL, item TEXT NOT NULL, verdict TEXT NOT NULL, PRIMARY KEY (tenant, item, verdict)) WITHOUT ROWID;
"""


def share_of(salt: str, group: str) -> float:
    """Return a group's place in [0, 1): uniform over groups, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:8], "big") / 2**64


def part_of(salt: str, group: str, shares: Mapping[str, float]) -> str:
    """Return the part a group falls in: `shares` in their order, the rest is `train`."""
    place, edge = share_of(salt, group), 0.0
    for part, share in shares.items():
        edge += share
        if place < edge:
            return part
    return "train"


def prompt_hash(prompt: str) -> bytes:
    """Return a hash that is equal for prompts that differ in case, white space and punctuation only."""
    return hashlib.sha256(" ".join(words_of(prompt)).encode()).digest()[:16]


class SplitStore:
    """Remember which group, item and prompt was in which part.

    Use as a context manager: everything in the block is one transaction.
    """

    def __init__(self, snapshots_dir: Path) -> None:
        snapshots_dir.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(snapshots_dir / "firewall.db", timeout=30, isolation_level=None)
        form = self._db.execute("PRAGMA user_version").fetchone()[0]  # 0: form 1, which says nothing
        refuse_newer("firewall", form, str(snapshots_dir / "firewall.db"))
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> SplitStore:
        self._db.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
        self._db.close()

    def assign(self, tenant: str, groups: Iterable[str], salt: str, shares: Mapping[str, float]) -> dict[str, str]:
        """Return the part of each group: as first assigned, or by its hash and from now on for ever."""
        wanted = sorted(set(groups))
        known = dict(self._db.execute("SELECT grp, part FROM part WHERE tenant = ?", (tenant,)).fetchall())
        fresh = {group: part_of(salt, group, shares) for group in wanted if group not in known}
        self._db.executemany("INSERT INTO part VALUES (?, ?, ?)", [(tenant, g, p) for g, p in fresh.items()])
        return {group: str(known.get(group) or fresh[group]) for group in wanted}

    def knows(self, tenant: str, groups: Set[str]) -> bool:
        """Tell whether every one of these groups was ever assigned."""
        return groups <= {row[0] for row in self._db.execute("SELECT grp FROM part WHERE tenant = ?", (tenant,))}

    def learn(self, tenant: str, groups: Iterable[str], part: str) -> int:
        """Take over assignments from elsewhere; what is known already holds. Returns how many were not known."""
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO part VALUES (?, ?, ?)", [(tenant, g, part) for g in groups])
        return self._db.total_changes - before

    def freeze(self, tenant: str, items: Sequence[str], most: int, *, worn: Set[str] = frozenset()) -> set[str]:
        """Return which of `items` (in order of preference) are frozen: members stay, places left are given out.

        Args:
            worn: items that too many verdicts used. They give up their places, and never get one.
        """
        known = {row[0] for row in self._db.execute("SELECT item FROM frozen WHERE tenant = ?", (tenant,))}
        members = known - worn
        joining = [item for item in items if item not in known | worn][: max(0, most - len(members))]
        self._db.executemany("INSERT INTO frozen VALUES (?, ?)", [(tenant, item) for item in joining])
        return (members | set(joining)) & set(items)

    def remember_prompts(self, tenant: str, prompts: Iterable[str]) -> set[bytes]:
        """Note gate prompts, and return the hashes of all that ever were: they never train, also if groups change."""
        fresh = [(tenant, prompt_hash(prompt)) for prompt in prompts]
        self._db.executemany("INSERT OR IGNORE INTO examined VALUES (?, ?)", fresh)
        return {bytes(row[0]) for row in self._db.execute("SELECT prompt FROM examined WHERE tenant = ?", (tenant,))}

    def uses(self, tenant: str) -> dict[str, int]:
        """Count the verdicts that used each item."""
        rows = self._db.execute("SELECT item, count(*) FROM used WHERE tenant = ? GROUP BY item", (tenant,))
        return {str(item): int(count) for item, count in rows}

    def mark_used(self, tenant: str, items: Iterable[str], verdict: str) -> None:
        """Note that a verdict used these items."""
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?, ?, ?)", [(tenant, i, verdict) for i in items])
