"""Merge duplicates: exact copies by hash, near copies by MinHash and LSH, across all history without re-reading it.

Two examples are one when they have the same shape, the same or nearly the same prompt (system messages left out: they
are alike in all rows), and the same answer. Nearly the same: estimated Jaccard similarity of word 3-shingles at least
`near` (Broder 1997; datasketch's MinHash, banded LSH as in Leskovec, Rajaraman, Ullman, ch. 3). A near copy with
*another* answer is kept and counted as a contradiction, and so is an exact copy of a prompt too short for near ones; of
rated answers only the same one, called good and bad.
What trusted people said never yields to what others said.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from feedback.duplicates.fingerprints import DedupeConfig, Fingerprints, with_missing
from feedback.duplicates.minhash import similarity
from feedback.examples import Example
from feedback.index.ingest_index import IngestIndex
from feedback.index.update import ContradictingPair, IndexEntry, IndexUpdate, Merge, Sketch

_LABEL_CHARS = 4_000
_ALIKE = 8
"""Of subjects with the very same short prompt so many, the latest, are compared: "Hello" may be met every day."""

Subject = tuple[str, str]
"""(tenant, subject)"""


@dataclass
class MergeResult:
    """Which examples of a batch were merged."""

    into: dict[str, str] = field(default_factory=dict)
    """Example that was dropped -> the one that stands for it."""
    near: int = 0
    """How many of those were near, not exact, copies."""
    contradictions: int = 0
    """How many have nearly the same prompt as an earlier one but another answer; the index update holds the pairs."""


class _Candidates:
    """Search the index, and what the batch had so far, for examples that one of the batch may be merged into."""

    def __init__(
        self,
        examples: Sequence[Example],
        index: IngestIndex,
        config: DedupeConfig,
        prints: Fingerprints,
        replaced: set[Subject],
    ) -> None:
        self._index, self._near, self._replaced = index.examples, config.near, replaced
        self._signatures, self._exact = prints.signatures, prints.exact
        subjects = {(e.tenant, e.subject) for e in examples}
        # A hash of the whole prompt is the same in all its bands or in none: one is enough.
        bands = {mine: keys[:1] if mine in prints.exact else keys for mine, keys in prints.bands.items()}
        wanted = Counter(key for mine in subjects for key in bands.get(mine, ()))
        self._known_bands = self._index.sketches_by_band(wanted)
        # A key that nobody shares makes no candidates, and nearly all are such.
        shared = self._known_bands.keys() | {key for key, times in wanted.items() if times > 1}
        self._bands = {mine: [key for key in bands[mine] if key in shared] for mine in subjects if mine in bands}
        keys = {prints.keys[e.example_id] for e in examples}
        self._known_keys = self._index.entries_by_key(keys) if config.enabled else {}
        self._by_key: dict[int, list[IndexEntry]] = {}
        self._by_band: dict[int, list[Subject]] = {}
        self.entries: dict[Subject, list[IndexEntry]] = {}
        """What the batch had so far, by subject."""
        self.signatures: dict[Subject, bytes] = {}

    def exact(self, entry: IndexEntry) -> list[IndexEntry]:
        """Return accepted examples with the same key."""
        known = [e for e in self._known_keys.get(entry.key, []) if (e.tenant, e.subject) not in self._replaced]
        return known + self._by_key.get(entry.key, [])

    def near(self, mine: Subject) -> list[IndexEntry]:
        """Return accepted examples of other subjects with nearly the same prompt; of very many with the very same
        short prompt only those of the latest subjects."""
        signature, most = self._signatures.get(mine), _ALIKE if mine in self._exact else None
        if signature is None or not self._bands[mine]:
            return []
        near: list[IndexEntry] = []
        numbers = sorted({n for key in self._bands[mine] for n in self._known_bands.get(key, [])})
        for number in numbers if most is None else numbers[-most:]:
            tenant, subject, other = self._index.sketch(number)
            if (tenant, subject) in self._replaced or tenant != mine[0]:
                continue
            if similarity(signature, other) >= self._near:
                near += self._index.entries_of(tenant, subject)
        met = [self._by_band.get(band, []) for band in self._bands[mine]]
        for key in dict.fromkeys(k for keys in met for k in (keys if most is None else keys[-most:])):
            if key != mine and key[0] == mine[0] and similarity(signature, self.signatures[key]) >= self._near:
                near += self.entries[key]
        return near

    def add(self, entry: IndexEntry) -> None:
        """Make an example of the batch a candidate for those after it."""
        mine = (entry.tenant, entry.subject)
        self._by_key.setdefault(entry.key, []).append(entry)
        self.entries.setdefault(mine, []).append(entry)
        if mine in self._signatures and mine not in self.signatures:
            self.signatures[mine] = self._signatures[mine]
            for key in self._bands[mine]:
                self._by_band.setdefault(key, []).append(mine)


def merge_duplicates(
    examples: Sequence[Example],
    index: IngestIndex,
    config: DedupeConfig,
    update: IndexUpdate,
    prints: Fingerprints | None = None,
) -> MergeResult:
    """Find the examples that were there before, in the index or earlier in the batch; add the rest to `update`.

    Those whose fingerprints were not made ahead get theirs now.
    """
    merged = MergeResult()
    prints = with_missing(prints or Fingerprints(), examples, config)
    replaced = set(update.subjects)  # their rows of earlier batches go, so nothing may be merged into those
    candidates = _Candidates(examples, index, config, prints, replaced)
    near_of: dict[Subject, list[IndexEntry]] = {}
    for example in examples:
        mine = (example.tenant, example.subject)
        if config.enabled and mine not in near_of:
            near_of[mine] = candidates.near(mine)
        entry = IndexEntry(
            *mine,
            shape=example.shape,
            key=prints.keys[example.example_id],
            label=_kept(prints.labels[example.example_id]),
            trusted=example.trusted,
            example_id=example.example_id,
        )
        twin = _stands_for(entry, candidates.exact(entry))
        if twin is None and near_of.get(mine):
            alike = [e for e in near_of[mine] if e.shape == entry.shape]
            twin = None if mine in prints.exact else _stands_for(entry, [e for e in alike if e.label == entry.label])
            merged.near += twin is not None
            other = next((e for e in alike if _contradict(entry, e)), None)
            if twin is None and other is not None:
                update.contradictions.append(
                    ContradictingPair(*mine, entry.example_id, other.subject, other.example_id)
                )
                merged.contradictions += 1
        if twin is not None and config.enabled:
            merged.into[example.example_id] = twin.example_id
            update.merged += [
                Merge(twin.tenant, twin.subject, twin.example_id, example.subject, event_id)
                for event_id in example.source_events
            ]
        else:
            candidates.add(entry)
    update.entries += [entry for entries in candidates.entries.values() for entry in entries]
    update.sketches += [Sketch(*subject, signature) for subject, signature in candidates.signatures.items()]
    return merged


def _kept(label: str) -> str:
    """Return the label as the index keeps it: of a long text the beginning and a hash, then the verdict."""
    if len(label) <= _LABEL_CHARS:
        return label
    text, _, verdict = label.rpartition("\0")
    whole = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[: _LABEL_CHARS - 64]}... {whole}\0{verdict}"


def _contradict(entry: IndexEntry, other: IndexEntry) -> bool:
    """Whether two rows of one shape, of nearly the same prompt, cannot both be right.

    A rated row says of one answer whether it is good: two answers may well both be bad.
    """
    if entry.shape != "rated":
        return entry.label != other.label
    (answer, _, verdict), (other_answer, _, other_verdict) = entry.label.rpartition("\0"), other.label.rpartition("\0")
    return answer == other_answer and verdict != other_verdict


def _stands_for(entry: IndexEntry, others: Sequence[IndexEntry]) -> IndexEntry | None:
    """The first of `others` that makes `entry` superfluous."""
    for other in others:
        if other.tenant == entry.tenant and other.subject != entry.subject and other.trusted >= entry.trusted:
            return other
    return None
