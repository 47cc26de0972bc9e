"""Split texts into words and word shingles, and number the words of a batch: each text is split once.

Several steps look at the words of the same prompts (near-duplicates, agreement, triggers). A `TokenIndex` travels with
a batch, from the process that prepares it to the one that judges it, so that nobody splits or looks up again.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """Split a text into its words, case aside."""
    return _WORD.findall(text.casefold())


def shingles(text: str, *, min_words: int = 1) -> set[str]:
    """Return the word 3-shingles of a text; fewer words are one shingle, fewer than `min_words` none."""
    words = words_of(text)
    if len(words) < min_words:
        return set()
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


@dataclass
class TokenIndex:
    """Number the words of texts."""

    _numbers: dict[str, int] = field(default_factory=dict)
    """Number by word."""
    _texts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By text, where in `_all` the numbers of its words begin and end."""
    _all: array[int] = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        """How many different words there are."""
        return len(self._numbers)

    def add(self, text: str) -> list[str]:
        """Split a text into its words, and keep their numbers."""
        words = words_of(text)
        if text not in self._texts:
            numbers, start = self._numbers, len(self._all)
            self._all.extend([numbers.setdefault(word, len(numbers)) for word in words])
            self._texts[text] = (start, len(self._all))
        return words

    def token_ids(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the words of all texts, one text after another, and how many each text has."""
        import numpy as np

        for text in texts:
            if text not in self._texts:
                self.add(text)
        places = np.asarray([self._texts[text] for text in texts], dtype=np.int64).reshape(-1, 2)
        counts = places[:, 1] - places[:, 0]
        # Where each word stands in `_all`: counted on from its text's first.
        firsts = np.repeat(places[:, 0] - (np.cumsum(counts) - counts), counts)
        numbers = np.frombuffer(self._all, dtype=np.intc) if len(self._all) else np.empty(0, dtype=np.intc)
        return numbers[firsts + np.arange(len(firsts))].astype(np.int64), counts

    def tokens(self) -> list[str]:
        """Return the word of each number."""
        return list(self._numbers)
