"""Compute MinHash signatures of texts' word 3-shingles (Broder 1997), and estimate similarity from them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate

from feedback.index.example_index import BAND_ROWS
from feedback.text.vocabulary import words_of

PERMUTATIONS = 10 * BAND_ROWS
_BLOCK = 64
"""Texts that are signed at a time: their hashes stay in the processor's cache."""


def _shingle_hashes(tokens: Sequence[str]) -> list[int]:
    """CRC-32 of every shingle, one that is there twice twice: the least of them is the same."""
    if len(tokens) <= 3:
        return [zlib.crc32(" ".join(tokens).encode())] if tokens else []
    text = " ".join(tokens)
    joined = text.encode()
    lengths = [len(word) + 1 for word in tokens] if text.isascii() else [len(word.encode()) + 1 for word in tokens]
    ends = list(accumulate(lengths))  # one behind the space after each word
    crc32 = zlib.crc32
    return [crc32(joined[start : end - 1]) for start, end in zip([0, *ends], ends[2:], strict=False)]


def minhash_signatures(texts: Sequence[str]) -> list[bytes]:
    """Compute the MinHash signatures (PERMUTATIONS 32-bit values each) of texts."""
    return signatures_of_words([words_of(text) for text in texts])


def signatures_of_words(texts: Sequence[Sequence[str]]) -> list[bytes]:
    """Compute the signatures of texts that are split into words, many at a time.

    The values are those of datasketch's own `update_batch` (a test compares them).
    """
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
            of_text = _shingle_hashes(words)
            if of_text:
                firsts.append(len(hashes))
            sizes.append(len(of_text))
            hashes += of_text
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


def similarity(signature: bytes, other: bytes) -> float:
    """Estimate the Jaccard similarity of what two signatures were made of; standard error at most 0.05."""
    import numpy as np

    equal = np.count_nonzero(np.frombuffer(signature, dtype="<u4") == np.frombuffer(other, dtype="<u4"))
    return int(equal) * 4 / len(signature)
