"""Find what was said before: exact copies by hash, near copies by MinHash, across all history without re-reading it.

Two examples are one when they have the same shape, the same or nearly the same prompt (system messages left out: they
are alike in all rows), and the same answer. Nearly the same: estimated Jaccard similarity of word 3-shingles at least
`near` (Broder 1997; datasketch's MinHash, banded LSH as in Leskovec, Rajaraman, Ullman, ch. 3). A near copy with
*another* answer is kept and counted as a contradiction, and so is an exact copy of a prompt too short for near ones; of
rated answers only the same one, called good and bad.
What trusted people said never yields to what others said.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pydantic import Field

from feedback.examples import Example, asked, same_text
from feedback.index.delta import Entry, Lesson
from feedback.index.index import BAND_ROWS, Past, band_keys
from feedback.text.vocabulary import Wordbook, words_of
from infra.settings import Config

PERMUTATIONS = 10 * BAND_ROWS
_LABEL_CHARS = 4_000
_ALIKE = 8
"""Of subjects with the very same short prompt so many, the latest, are compared: "Hello" may be met every day."""
_BLOCK = 64
"""Texts that are signed at a time: their hashes stay in the processor's cache."""


class DedupeConfig(Config):
    """How duplicates are found."""

    enabled: bool = True
    """Whether duplicates are merged."""
    near: float = Field(default=0.9, ge=0.5, le=1)
    """Similarity of two prompts from which they count as near copies; 1 looks for exact copies only."""
    min_words: int = Field(default=8, ge=1)
    """Prompts with fewer words are compared exactly only: in short texts one other word is another question."""


@dataclass
class Merged:
    """What dedupe found in a batch."""

    into: dict[str, str] = field(default_factory=dict)
    """Example that was dropped -> the one that stands for it."""
    near: int = 0
    """How many of those were near, not exact, copies."""
    contradictions: int = 0
    """How many have nearly the same prompt as an earlier one but another answer; the lesson holds the pairs."""


@dataclass
class Prints:
    """What examples are compared with others by. It follows from each alone, so it can be made ahead."""

    signatures: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """MinHash of the prompt by (tenant, subject), for prompts that near copies are looked for of. For the others a hash
    of the whole prompt, of the same form: it meets the very same prompt only, in the same index."""
    exact: set[tuple[str, str]] = field(default_factory=set)
    """Those with a hash of the whole prompt."""
    bands: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """LSH keys of the signature."""
    labels: dict[str, str] = field(default_factory=dict)
    """What the answer is compared by, by example."""
    keys: dict[str, int] = field(default_factory=dict)
    """What exact copies are found by, by example."""


@dataclass
class _Batch:
    """Duplicates within the batch itself, by the same means."""

    by_key: dict[int, list[Entry]] = field(default_factory=dict)
    by_band: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    entries: dict[tuple[str, str], list[Entry]] = field(default_factory=dict)
    signatures: dict[tuple[str, str], bytes] = field(default_factory=dict)


def merge_duplicates(
    examples: Sequence[Example], past: Past, config: DedupeConfig, lesson: Lesson, prints: Prints | None = None
) -> Merged:
    """Find the examples that were there before, in the past or earlier in the batch; teach `lesson` the rest.

    Those whose `prints` were not made ahead get theirs now.
    """
    merged, batch = Merged(), _Batch()
    prints = _with_missing(prints or Prints(), examples, config)
    signatures, bands, labels, keys = prints.signatures, prints.bands, prints.labels, prints.keys
    replaced = set(lesson.subjects)  # their rows of earlier batches go, so nothing may be merged into those
    subjects = {(e.tenant, e.subject) for e in examples}
    # A hash of the whole prompt is the same in all its bands or in none: one is enough.
    bands = {mine: keys_of[:1] if mine in prints.exact else keys_of for mine, keys_of in bands.items()}
    wanted = Counter(k for mine in subjects for k in bands.get(mine, ()))
    known_bands = past.sketches_by_band(wanted)
    # A key that nobody shares makes no candidates, and nearly all are such.
    shared = known_bands.keys() | {key for key, times in wanted.items() if times > 1}
    bands = {mine: [k for k in bands[mine] if k in shared] for mine in subjects if mine in bands}
    known_keys = past.entries_by_key({keys[e.example_id] for e in examples}) if config.enabled else {}
    near_of: dict[tuple[str, str], list[Entry]] = {}
    for example in examples:
        mine = (example.tenant, example.subject)
        if config.enabled and mine not in near_of:
            most = _ALIKE if mine in prints.exact else None
            near_of[mine] = _near(mine, signatures, bands, known_bands, past, batch, config, replaced, most)
        entry = Entry(
            example.tenant,
            example.subject,
            example.shape,
            keys[example.example_id],
            _kept(labels[example.example_id]),
            example.trusted,
            example.example_id,
        )
        exact = [e for e in known_keys.get(entry.key, []) if (e.tenant, e.subject) not in replaced]
        exact += batch.by_key.get(entry.key, [])
        twin = _stands_for(entry, exact)
        if twin is None and near_of.get(mine):
            alike = [e for e in near_of[mine] if e.shape == entry.shape]
            twin = None if mine in prints.exact else _stands_for(entry, [e for e in alike if e.label == entry.label])
            merged.near += twin is not None
            other = next((e for e in alike if _contradict(entry, e)), None)
            if twin is None and other is not None:
                lesson.contradictions.append((*mine, entry.example_id, other.subject, other.example_id))
                merged.contradictions += 1
        if twin is not None and config.enabled:
            merged.into[example.example_id] = twin.example_id
            stands = (twin.tenant, twin.subject, twin.example_id, example.subject)
            lesson.merged += [(*stands, event_id) for event_id in example.source_events]
            continue
        batch.by_key.setdefault(entry.key, []).append(entry)
        batch.entries.setdefault(mine, []).append(entry)
        if mine in signatures and mine not in batch.signatures:
            batch.signatures[mine] = signatures[mine]
            for key in bands[mine]:
                batch.by_band.setdefault(key, []).append(mine)
    lesson.entries += [e._asdict() for entries in batch.entries.values() for e in entries]
    lesson.sketches += [(t, s, base64.b64encode(sig).decode()) for (t, s), sig in batch.signatures.items()]
    return merged


def prints_of(examples: Sequence[Example], config: DedupeConfig, book: Wordbook | None = None) -> Prints:
    """The prints of examples; the words of their prompts go into `book`."""
    subjects: dict[tuple[str, str], Example] = {}
    for example in examples:
        subjects.setdefault((example.tenant, example.subject), example)
    signatures = _sign(subjects, config, Wordbook() if book is None else book) if config.enabled else {}
    prompts = {key: same_text(prompt_text(e)) for key, e in subjects.items()}
    # Documents have no answer that could be another.
    short = [k for k, e in subjects.items() if k not in signatures and prompts[k] and not e.text and config.enabled]
    signatures |= {key: hashlib.shake_128(prompts[key].encode()).digest(4 * PERMUTATIONS) for key in short}
    made = band_keys([tenant for tenant, _ in signatures], list(signatures.values()))
    labels = {e.example_id: label_text(e) for e in examples}
    keys = {e.example_id: _key(e, prompts[(e.tenant, e.subject)], labels[e.example_id]) for e in examples}
    return Prints(signatures, set(short), dict(zip(signatures, made, strict=True)), labels, keys)


def _kept(label: str) -> str:
    """The label as the index keeps it: of a long text the beginning and a hash, then the verdict."""
    if len(label) <= _LABEL_CHARS:
        return label
    text, _, verdict = label.rpartition("\0")
    whole = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[: _LABEL_CHARS - 64]}... {whole}\0{verdict}"


def _contradict(one: Entry, other: Entry) -> bool:
    """Whether two rows of one shape, of nearly the same prompt, cannot both be right.

    A rated row says of one answer whether it is good: two answers may well both be bad.
    """
    if one.shape != "rated":
        return one.label != other.label
    (said, _, verdict), (said_of_other, _, others) = one.label.rpartition("\0"), other.label.rpartition("\0")
    return said == said_of_other and verdict != others


def _with_missing(prints: Prints, examples: Sequence[Example], config: DedupeConfig) -> Prints:
    missing = [e for e in examples if e.example_id not in prints.labels]
    more = prints_of(missing, config) if missing else Prints()
    prints.signatures.update(more.signatures)
    prints.exact.update(more.exact)
    prints.bands.update(more.bands)
    prints.labels.update(more.labels)
    prints.keys.update(more.keys)
    return prints


def prompt_text(example: Example) -> str:
    """What two prompts are compared by."""
    return example.text or asked(example.messages)


def label_text(example: Example) -> str:
    """What two answers are compared by."""
    parts = (example.completion, example.chosen, example.rejected, example.reference)
    return "\0".join([*(same_text(part) for part in parts if part is not None), str(example.good)])


def shingles(text: str) -> set[str]:
    """The word 3-shingles of a text; fewer words are one shingle."""
    words = words_of(text)
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))} if words else set()


def _shingle_hashes(words: Sequence[str]) -> list[int]:
    """CRC-32 of every shingle, one that is there twice twice: the least of them is the same."""
    if len(words) <= 3:
        return [zlib.crc32(" ".join(words).encode())] if words else []
    text = " ".join(words)
    joined = text.encode()
    lengths = [len(word) + 1 for word in words] if text.isascii() else [len(word.encode()) + 1 for word in words]
    ends = list(accumulate(lengths))  # one behind the space after each word
    crc32 = zlib.crc32
    return [crc32(joined[start : end - 1]) for start, end in zip([0, *ends], ends[2:], strict=False)]


def sign(texts: Sequence[str]) -> list[bytes]:
    """MinHash signatures (PERMUTATIONS 32-bit values each) of texts."""
    return _sign_words([words_of(text) for text in texts])


def _sign_words(texts: Sequence[Sequence[str]]) -> list[bytes]:
    """The same values as datasketch's own `update_batch` (a test compares them), many texts at a time."""
    import numpy as np
    from datasketch import MinHash

    factors, terms = MinHash(num_perm=PERMUTATIONS, scheme="affine32").permutations
    empty = np.full(PERMUTATIONS, 2**32 - 1, dtype="<u4").tobytes()
    signatures: list[bytes] = []
    for start in range(0, len(texts), _BLOCK):
        hashes: list[int] = []
        firsts: list[int] = []
        sizes: list[int] = []
        for words in texts[start : start + _BLOCK]:
            found = _shingle_hashes(words)
            if found:
                firsts.append(len(hashes))
            sizes.append(len(found))
            hashes += found
        if not hashes:
            signatures += [empty] * len(sizes)
            continue
        mixed = np.asarray(hashes, dtype=np.uint32)  # MurmurHash3's finaliser, as the affine schemes want it
        mixed ^= mixed >> np.uint32(16)
        mixed *= np.uint32(0x85EBCA6B)
        mixed ^= mixed >> np.uint32(13)
        mixed *= np.uint32(0xC2B2AE35)
        mixed ^= mixed >> np.uint32(16)
        least = np.minimum.reduceat(mixed[:, None] * factors + terms, firsts, axis=0).astype("<u4")
        rows = iter(least)
        signatures += [next(rows).tobytes() if size else empty for size in sizes]
    return signatures


def similarity(one: bytes, other: bytes) -> float:
    """Estimated Jaccard similarity of what two signatures were made of; standard error at most 0.05."""
    import numpy as np

    equal = np.count_nonzero(np.frombuffer(one, dtype="<u4") == np.frombuffer(other, dtype="<u4"))
    return int(equal) * 4 / len(one)


def _sign(
    subjects: Mapping[tuple[str, str], Example], config: DedupeConfig, book: Wordbook
) -> dict[tuple[str, str], bytes]:
    if config.near >= 1:
        return {}
    words = {key: book.words(prompt_text(e)) for key, e in subjects.items()}
    long = [key for key, found in words.items() if len(found) >= config.min_words]
    return dict(zip(long, _sign_words([words[key] for key in long]), strict=True)) if long else {}


def _key(example: Example, prompt: str, label: str) -> int:
    whole = "\0\0".join([example.tenant, example.shape, prompt, label])
    return int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=8).digest(), "big", signed=True)


def _near(
    mine: tuple[str, str],
    signatures: dict[tuple[str, str], bytes],
    bands: dict[tuple[str, str], list[int]],
    known: dict[int, list[int]],
    past: Past,
    batch: _Batch,
    config: DedupeConfig,
    replaced: set[tuple[str, str]],
    most: int | None,
) -> list[Entry]:
    """Accepted examples of other subjects with nearly the same prompt; with `most`, of the latest subjects only."""
    signature = signatures.get(mine)
    if signature is None or not bands[mine]:
        return []
    found: list[Entry] = []
    numbers = sorted({n for key in bands[mine] for n in known.get(key, [])})
    for number in numbers if most is None else numbers[-most:]:
        tenant, subject, other = past.sketch(number)
        if (tenant, subject) not in replaced and tenant == mine[0] and similarity(signature, other) >= config.near:
            found += past.entries_of(tenant, subject)
    met = [batch.by_band.get(band, []) for band in bands[mine]]
    for key in dict.fromkeys(k for those in met for k in (those if most is None else those[-most:])):
        if key != mine and key[0] == mine[0] and similarity(signature, batch.signatures[key]) >= config.near:
            found += batch.entries[key]
    return found


def _stands_for(entry: Entry, others: Sequence[Entry]) -> Entry | None:
    """The first of `others` that makes `entry` superfluous."""
    for other in others:
        if other.tenant == entry.tenant and other.subject != entry.subject and other.trusted >= entry.trusted:
            return other
    return None
