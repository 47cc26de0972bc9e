"""Compute what examples are compared with others by: signatures of prompts, keys of whole examples, labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from feedback.duplicates.minhash import PERMUTATIONS, signatures_of_words
from feedback.examples import Example, same_text, user_text
from feedback.index.example_index import band_keys
from feedback.text.vocabulary import TokenIndex
from infra.settings import Config


class DedupeConfig(Config):
    """How duplicates are found."""

    enabled: bool = True
    """Whether duplicates are merged."""
    near: float = Field(default=0.9, ge=0.5, le=1)
    """Similarity of two prompts from which they count as near copies; 1 looks for exact copies only."""
    min_words: int = Field(default=8, ge=1)
    """Prompts with fewer words are compared exactly only: in short texts one other word is another question."""


@dataclass
class Fingerprints:
    """What examples are compared with others by. It follows from each alone, so it can be prefetched."""

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


def fingerprints_of(
    examples: Sequence[Example], config: DedupeConfig, tokens: TokenIndex | None = None
) -> Fingerprints:
    """Return the fingerprints of examples; the words of their prompts go into `tokens`."""
    subjects: dict[tuple[str, str], Example] = {}
    for example in examples:
        subjects.setdefault((example.tenant, example.subject), example)
    signatures = (
        _prompt_signatures(subjects, config, TokenIndex() if tokens is None else tokens) if config.enabled else {}
    )
    prompts = {key: same_text(prompt_text(e)) for key, e in subjects.items()}
    # Documents have no answer that could be another.
    short = [k for k, e in subjects.items() if k not in signatures and prompts[k] and not e.text and config.enabled]
    signatures |= {key: hashlib.shake_128(prompts[key].encode()).digest(4 * PERMUTATIONS) for key in short}
    made = band_keys([tenant for tenant, _ in signatures], list(signatures.values()))
    labels = {e.example_id: label_text(e) for e in examples}
    keys = {e.example_id: _key(e, prompts[(e.tenant, e.subject)], labels[e.example_id]) for e in examples}
    return Fingerprints(signatures, set(short), dict(zip(signatures, made, strict=True)), labels, keys)


def with_missing(prints: Fingerprints, examples: Sequence[Example], config: DedupeConfig) -> Fingerprints:
    """Add the fingerprints of examples that have none yet."""
    missing = [e for e in examples if e.example_id not in prints.labels]
    more = fingerprints_of(missing, config) if missing else Fingerprints()
    prints.signatures.update(more.signatures)
    prints.exact.update(more.exact)
    prints.bands.update(more.bands)
    prints.labels.update(more.labels)
    prints.keys.update(more.keys)
    return prints


def prompt_text(example: Example) -> str:
    """Return the text that two prompts are compared by."""
    return example.text or user_text(example.messages)


def label_text(example: Example) -> str:
    """Return the text that two answers are compared by."""
    parts = (example.completion, example.chosen, example.rejected, example.reference)
    return "\0".join([*(same_text(part) for part in parts if part is not None), str(example.good)])


def _prompt_signatures(
    subjects: Mapping[tuple[str, str], Example], config: DedupeConfig, tokens: TokenIndex
) -> dict[tuple[str, str], bytes]:
    if config.near >= 1:
        return {}
    words = {key: tokens.add(prompt_text(e)) for key, e in subjects.items()}
    long = [key for key, split in words.items() if len(split) >= config.min_words]
    return dict(zip(long, signatures_of_words([words[key] for key in long]), strict=True)) if long else {}


def _key(example: Example, prompt: str, label: str) -> int:
    whole = "\0\0".join([example.tenant, example.shape, prompt, label])
    return int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=8).digest(), "big", signed=True)
