"""Score how far a claim agrees with what trusted people say of the same or similar inputs.

Each claim ("to this prompt, this is a right answer") is scored 0..1 against the claims of its nearest neighbours
among the reference claims: prompts by TF-IDF cosine, answers field by field where both are JSON objects, else by
token F1. The references are scored against one another in the same way, leaving themselves out, which tells what an
honest person would score: how noisy labels and neighbours are is measured, not assumed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from feedback.text.vocabulary import TokenIndex, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_BLOCK = 512


@dataclass(frozen=True)
class Claim:
    """That `answer` is right (or, if not `positive`, wrong) for `prompt`."""

    subject: str
    actor: str
    prompt: str
    answer: str
    positive: bool = True


@dataclass(frozen=True)
class Baseline:
    """What honest claims score: mean, and standard deviation of one claim."""

    mean: float
    deviation: float
    claims: int


@lru_cache(maxsize=50_000)
def _fields(answer: str) -> dict[str, JsonValue] | None:
    """The JSON object that an answer is, if it is one."""
    text = answer.strip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@lru_cache(maxsize=50_000)
def _bag(answer: str) -> Counter[str]:
    return Counter(words_of(answer))


def answer_similarity(answer: str, other: str) -> float:
    """Compare two answers on 0..1: share of equal fields of two JSON objects, else token F1."""
    if answer == other:
        return 1.0
    fields, other_fields = _fields(answer), _fields(other)
    if fields is not None and other_fields is not None:
        names = fields.keys() | other_fields.keys()
        equal = sum(bool(fields.get(name) == other_fields.get(name)) for name in names)
        return equal / max(1, len(names))
    bag, other_bag = _bag(answer), _bag(other)
    common = sum((bag & other_bag).values())
    return 2 * common / max(1, sum(bag.values()) + sum(other_bag.values()))


def label_key(answer: str) -> str:
    """Return a key that is equal for answers that differ in case, white space, punctuation or order of fields only."""
    value = _fields(answer)
    if value is not None:
        return json.dumps(value, sort_keys=True, ensure_ascii=False).casefold()
    return " ".join(words_of(answer))


def trusted_baseline(scores: Sequence[float | None]) -> Baseline:
    """Compute what honest claims score, taken from the scores of the references, all trusted, against one another."""
    every = [score for score in scores if score is not None]
    if not every:
        return Baseline(0.0, 1.0, 0)
    return Baseline(sum(every) / len(every), _spread(every, sum(every) / len(every)), len(every))


def crowd_baseline(claims: Sequence[Claim], scores: Sequence[float | None]) -> Baseline:
    """Compute what claims of people nobody vouches for score.

    The mean is the middle one of the actors' means, so that a few bad actors among many do not move it.
    """
    by_actor: dict[str, list[float]] = {}
    for claim, score in zip(claims, scores, strict=True):
        if score is not None:
            by_actor.setdefault(claim.actor, []).append(score)
    every = [score for mine in by_actor.values() for score in mine]
    if not every:
        return Baseline(0.0, 1.0, 0)
    means = sorted(sum(mine) / len(mine) for mine in by_actor.values())
    mean = means[len(means) // 2] if len(means) > 2 else sum(every) / len(every)
    return Baseline(mean, _spread(every, mean), len(every))


def _spread(scores: Sequence[float], mean: float) -> float:
    return math.sqrt(sum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1))


def baselines_by_label(claims: Sequence[Claim], scores: Sequence[float | None], fewest: int) -> dict[str, Baseline]:
    """Compute the baseline of each label given `fewest` times or more: some are less like their neighbours'."""
    by_label: dict[str, list[int]] = {}
    for place, claim in enumerate(claims):
        by_label.setdefault(label_key(claim.answer), []).append(place)
    return {
        label: trusted_baseline([scores[place] for place in same])
        for label, same in by_label.items()
        if len(same) >= fewest
    }


class Neighbours:
    """Search reference claims by prompt."""

    def __init__(
        self, references: Sequence[Claim], *, near: float, count: int = 5, tokens: TokenIndex | None = None
    ) -> None:
        import numpy as np
        from scipy import sparse

        self.references = list(references)
        self.near, self.count = near, count
        self._tokens = TokenIndex() if tokens is None else tokens
        self._sparse = sparse
        counted = self._counted(self.references)
        self._known = max(1, len(self._tokens))  # words with a higher number are in no reference
        frequency = np.bincount(counted[1], minlength=self._known + 1)
        self._weights = 1 + np.log((1 + len(self.references)) / (1 + frequency))
        self._matrix = self._weighed(len(self.references), *counted)[0]
        self._by_word = self._matrix.T.tocsr()

    def scores(self, claims: Sequence[Claim]) -> list[float | None]:
        """Score for each claim how far its neighbours' answers bear it out, 0..1; None where it has no near neighbour.

        Neighbours of the claim's own subject count (the same input), its own actor's claims never do. A negative
        claim is wrong only as far as near-identical inputs have just that answer as the right one.
        """
        scores: list[float | None] = []
        for start in range(0, len(claims), _BLOCK):
            block = claims[start : start + _BLOCK]
            near = self._near(block)
            scores += [
                self._score(claim, [(c, self.references[i]) for c, i in hits])
                for claim, hits in zip(block, near, strict=True)
            ]
        return scores

    def _near(self, claims: Sequence[Claim]) -> list[list[tuple[float, int]]]:
        """(cosine, reference) of every reference at least `near` to each claim's prompt, exactly.

        Prefix filtering (Bayardo, Ma, Srikant 2007, for cosine): a text's commonest words, as long as they weigh less
        than `near` together, cannot make a neighbour by themselves, so only its rarer words look for candidates.
        """
        import numpy as np

        rare, common, rest = self._weighed(len(claims), *self._counted(claims), split=True)
        hits = (rare @ self._by_word).tocoo()
        kept = hits.data + rest[hits.row] >= self.near
        texts, references, cosine = hits.row[kept], hits.col[kept], hits.data[kept]
        neighbours: list[list[tuple[float, int]]] = [[] for _ in claims]
        if len(texts):
            others = common[texts].multiply(self._matrix[references])
            cosine = cosine + np.asarray(others.sum(axis=1)).ravel()
            near = cosine >= self.near
            for text, c, reference in zip(
                texts[near].tolist(), cosine[near].tolist(), references[near].tolist(), strict=True
            ):
                neighbours[text].append((c, reference))
        return neighbours

    def _score(self, claim: Claim, near: list[tuple[float, Claim]]) -> float | None:
        others = [(c, r) for c, r in near if r.actor != claim.actor]
        if not claim.positive:
            same = [(c, r) for c, r in others if c >= 0.9]
            if not same:
                return None
            contradicted = sum(c * (answer_similarity(claim.answer, r.answer) > 0.99) for c, r in same)
            return 1 - contradicted / sum(c for c, _ in same)
        closest = sorted(others, key=lambda pair: (-pair[0], pair[1].subject))[: self.count]
        if not closest:
            return None
        weight = sum(c**2 for c, _ in closest)
        return sum(c**2 * answer_similarity(claim.answer, r.answer) for c, r in closest) / weight

    def _counted(self, claims: Sequence[Claim]) -> tuple[Ints, Ints, Ints]:
        """(claim, word of its prompt, how often it is there), by claim and word."""
        import numpy as np

        words, lengths = self._tokens.token_ids([c.prompt for c in claims])
        width = max(1, len(self._tokens))
        cells, counts = np.unique(np.repeat(np.arange(len(claims)), lengths) * width + words, return_counts=True)
        return *np.divmod(cells, width), counts

    def _weighed(self, texts: int, row: Any, word: Any, counts: Any, *, split: bool = False) -> tuple[Any, Any, Any]:
        """Unit-length TF-IDF rows: (rare words, common words, length of the common part).

        Words that no reference has only take length. Without `split` all words are in the first.
        """
        import numpy as np

        size = self._known
        value = (1 + np.log(counts)) * self._weights[np.minimum(word, size)]
        norm = np.sqrt(np.bincount(row, value**2, minlength=texts))
        value = value / norm[row]
        known = word < size
        row, word, value = row[known], word[known], value[known]
        common = np.zeros(len(value), dtype=bool)
        if split and len(value):
            order = np.lexsort((value, row))  # the lightest of each text, which are the commonest, first
            row, word, value = row[order], word[order], value[order]
            sums = np.cumsum(value**2)
            starts = np.searchsorted(row, row)
            common = sums - sums[starts] + value[starts] ** 2 < (self.near * _COMMON) ** 2
        rests = np.sqrt(np.bincount(row[common], value[common] ** 2, minlength=texts))
        shape = (texts, size)
        made = [
            self._sparse.csr_matrix((value[part], (row[part], word[part])), shape=shape) for part in (~common, common)
        ]
        return made[0], made[1], rests


_COMMON = 0.8
"""Share of `near` that a text's common words may weigh."""
