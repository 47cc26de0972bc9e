"""Find texts that are copies of gate prompts (train/eval contamination): every one, not a sample."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from feedback.text.vocabulary import shingles, words_of

NEAR = 0.8
"""Similarity from which a prompt counts as a copy of another."""
NEAR_MIN_WORDS = 8
"""Prompts with fewer words are compared exactly only."""


class ContaminationCheck:
    """Find texts that are exact or near copies of gate prompts: every one, not a sample.

    Jaccard similarity of word 3-shingles at least `near`, by prefix filtering (Bayardo, Ma, Srikant 2007): two sets
    that similar share one of their rarest shingles. Texts shorter than `min_words` are compared word by word only.
    """

    def __init__(self, prompts: Sequence[str], *, near: float = NEAR, min_words: int = NEAR_MIN_WORDS) -> None:
        self.near, self.min_words = near, min_words
        self._exact: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            self._exact.setdefault(" ".join(words_of(prompt)), []).append(place)
        self._sets = [shingles(prompt, min_words=min_words) for prompt in prompts]
        self._frequency = Counter(shingle for prompt_set in self._sets for shingle in prompt_set)
        self._index: dict[str, list[int]] = {}
        for place, prompt_set in enumerate(self._sets):
            for shingle in self._prefix(prompt_set):
                self._index.setdefault(shingle, []).append(place)

    def holds(self, text: str) -> bool:
        """Tell whether `text` is a copy of a gate prompt."""
        return next(self.copied(text), None) is not None

    def copied(self, text: str) -> Iterator[int]:
        """Yield the places of the gate prompts that `text` is a copy of."""
        exact = self._exact.get(" ".join(words_of(text)), [])
        yield from exact
        mine = shingles(text, min_words=self.min_words)
        for place in {p for shingle in self._prefix(mine) for p in self._index.get(shingle, ())} - set(exact):
            other = self._sets[place]
            if len(mine & other) >= self.near * len(mine | other):
                yield place

    def _prefix(self, members: set[str]) -> list[str]:
        ordered = sorted(members, key=lambda s: (self._frequency[s], s))
        return ordered[: len(ordered) - math.ceil(self.near * len(ordered)) + 1]
