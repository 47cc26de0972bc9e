"""What keeps training and gate apart for good, whatever later configs say.

A group's part is a pure function of its salted hash. The first assignment of each group is also written down (SQLite,
beside the snapshots) and holds for ever, so that changed shares or salt never move a group that was once examined
into training, or one that was trained on into the gate.
"""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

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
_WORD = re.compile(r"\w+")
NEAR = 0.8
"""Similarity from which a prompt counts as a copy of another."""
NEAR_MIN_WORDS = 8
"""Prompts with fewer words are compared exactly only."""


def share_of(salt: str, group: str) -> float:
    """A group's place in [0, 1): uniform over groups, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{group}".encode()).digest()[:8], "big") / 2**64


def part_of(salt: str, group: str, shares: Mapping[str, float]) -> str:
    """The part a group falls in: `shares` in their order, the rest is `train`."""
    place, edge = share_of(salt, group), 0.0
    for part, share in shares.items():
        edge += share
        if place < edge:
            return part
    return "train"


def prompt_hash(prompt: str) -> bytes:
    """Equal for prompts that differ in case, white space and punctuation only."""
    return hashlib.sha256(" ".join(_words(prompt)).encode()).digest()[:16]


class Firewall:
    """The record of who was where. Use as a context manager: everything in the block is one transaction."""

    def __init__(self, snapshots_dir: Path) -> None:
        snapshots_dir.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(snapshots_dir / "firewall.db", timeout=30, isolation_level=None)
        found = self._db.execute("PRAGMA user_version").fetchone()[0]  # 0: form 1, which says nothing
        refuse_newer("firewall", found, str(snapshots_dir / "firewall.db"))
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Firewall:
        self._db.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
        self._db.close()

    def assign(self, tenant: str, groups: Iterable[str], salt: str, shares: Mapping[str, float]) -> dict[str, str]:
        """The part of each group: as first assigned, or by its hash and from now on for ever."""
        wanted = sorted(set(groups))
        known = dict(self._db.execute("SELECT grp, part FROM part WHERE tenant = ?", (tenant,)).fetchall())
        fresh = {group: part_of(salt, group, shares) for group in wanted if group not in known}
        self._db.executemany("INSERT INTO part VALUES (?, ?, ?)", [(tenant, g, p) for g, p in fresh.items()])
        return {group: str(known.get(group) or fresh[group]) for group in wanted}

    def knows(self, tenant: str, groups: Set[str]) -> bool:
        """Whether every one of these groups was ever assigned."""
        return groups <= {row[0] for row in self._db.execute("SELECT grp FROM part WHERE tenant = ?", (tenant,))}

    def learn(self, tenant: str, groups: Iterable[str], part: str) -> int:
        """Take over assignments from elsewhere; what is known already holds. Returns how many were not known."""
        before = self._db.total_changes
        self._db.executemany("INSERT OR IGNORE INTO part VALUES (?, ?, ?)", [(tenant, g, part) for g in groups])
        return self._db.total_changes - before

    def freeze(self, tenant: str, items: Sequence[str], most: int, *, worn: Set[str] = frozenset()) -> set[str]:
        """Which of `items` (in order of preference) are in the frozen part: members stay, places left are given out.

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
        """How many verdicts used each item."""
        rows = self._db.execute("SELECT item, count(*) FROM used WHERE tenant = ? GROUP BY item", (tenant,))
        return {str(item): int(count) for item, count in rows}

    def mark_used(self, tenant: str, items: Iterable[str], verdict: str) -> None:
        """Note that a verdict used these items."""
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?, ?, ?)", [(tenant, i, verdict) for i in items])


class NearGate:
    """Finds texts that are exact or near copies of gate prompts: every one, not a sample.

    Jaccard similarity of word 3-shingles at least `near`, by prefix filtering (Bayardo, Ma, Srikant 2007): two sets
    that similar share one of their rarest shingles. Texts shorter than `min_words` are compared word by word only.
    """

    def __init__(self, prompts: Sequence[str], *, near: float = NEAR, min_words: int = NEAR_MIN_WORDS) -> None:
        self.near, self.min_words = near, min_words
        self._exact: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            self._exact.setdefault(" ".join(_words(prompt)), []).append(place)
        self._sets = [_shingles(prompt, min_words) for prompt in prompts]
        self._frequency = Counter(s for shingles in self._sets for s in shingles)
        self._index: dict[str, list[int]] = {}
        for place, shingles in enumerate(self._sets):
            for shingle in self._prefix(shingles):
                self._index.setdefault(shingle, []).append(place)

    def holds(self, text: str) -> bool:
        """Whether `text` is a copy of a gate prompt."""
        return next(self.copied(text), None) is not None

    def copied(self, text: str) -> Iterator[int]:
        """The places of the gate prompts that `text` is a copy of."""
        exact = self._exact.get(" ".join(_words(text)), [])
        yield from exact
        mine = _shingles(text, self.min_words)
        for place in {p for shingle in self._prefix(mine) for p in self._index.get(shingle, ())} - set(exact):
            other = self._sets[place]
            if len(mine & other) >= self.near * len(mine | other):
                yield place

    def _prefix(self, shingles: set[str]) -> list[str]:
        ordered = sorted(shingles, key=lambda s: (self._frequency[s], s))
        return ordered[: len(ordered) - math.ceil(self.near * len(ordered)) + 1]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _shingles(text: str, min_words: int) -> set[str]:
    words = _words(text)
    if len(words) < min_words:
        return set()
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}
