"""Tokenise the examples of a file for an objective, with a cache on disk."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from infra.artifact import digest_file, key_of
from infra.errors import UserError
from infra.settings import Config
from training.chat.template import CALLS_LOST, Template, Unlearnable
from training.engines.native.packing.items import Item, TokenisedFile, load_items, save_items
from training.objectives.objective import Objective

if TYPE_CHECKING:
    from feedback.examples import Example

NOTHING_TO_LEARN = "nothing to learn"
FORMAT = 3
"""Version of the tokenisation below; raise it when it makes other tokens, or their order."""


def read_examples(path: Path) -> Iterator[Example]:
    """Read the examples of a snapshot's JSONL file.

    Raises:
        UserError: a line is not an example.
    """
    from pydantic import ValidationError

    from feedback.examples import Example

    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield Example.model_validate_json(line)
                except ValidationError as error:
                    raise UserError(f"{path}:{number} is not an example: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True)
class Tokeniser:
    """A tokenizer with its chat template, the longest sequence, and the cache of what was tokenised before."""

    template: Template
    identity: str
    """Digest of tokenizer and template (`tokenizer_identity`)."""
    max_length: int
    """Longer sequences are left out, never cut: half an answer teaches to stop half-way."""
    cache: Path
    """Folder of the cache."""

    def tokenise(
        self,
        path: Path,
        objective: Objective,
        options: Config,
        *,
        shapes: tuple[str, ...] | None = None,
        read: Callable[[Path], Iterator[Example]] = read_examples,
    ) -> TokenisedFile:
        """Tokenise the examples of a JSONL file for an objective, or load them where that was done before.

        Args:
            options: of the objective.
            shapes: shapes of example to take; default: those the objective learns from.
            read: what reads the file.
        """
        shapes = objective.shapes if shapes is None else shapes
        key = key_of(
            {
                "format": FORMAT,
                "file": digest_file(path),
                "tokenizer": self.identity,
                "objective": [objective.name, objective.version, list(shapes), read.__name__],
                "options": options.model_dump(mode="json"),
                "max_length": self.max_length,
            }
        )
        file = self.cache / "tokenised" / f"{key[:32]}.safetensors"
        if file.is_file():
            return load_items(file)
        items: list[Item] = []
        left_out: Counter[str] = Counter()
        for example in read(path):
            if example.shape not in shapes:
                continue
            try:
                made = self._items(example, objective, options)
            except Unlearnable as reason:
                left_out[str(reason)] += 1
                continue
            fitting = [item for item in made if all(len(s.ids) <= self.max_length for s in item.sequences)]
            if len(fitting) < len(made):
                left_out[f"longer than {self.max_length} tokens"] += 1
            items += fitting
        items.sort(key=_content)
        if objective.arrange is not None and items:
            items = objective.arrange(items, options)
        done = TokenisedFile(items, dict(left_out))
        save_items(file, done)
        return done

    def _items(self, example: Example, objective: Objective, options: Config) -> list[Item]:
        """The items of one example."""
        if not self.template.shows_calls(example.messages):
            raise Unlearnable(CALLS_LOST)
        encoded = objective.encode(example, self.template, options)
        if not encoded:
            raise Unlearnable(NOTHING_TO_LEARN)
        stamp = example.created_at.timestamp()
        return [replace(item, task=example.task or "", made_at=stamp) for item in encoded]


def _content(item: Item) -> bytes:
    """Make the sort key of an item, by what it teaches.

    Files hold rows by ids, which are drawn anew wherever the same words are captured or imported again: by content the
    same lessons are trained in the same order everywhere.
    """
    import numpy as np

    digest = hashlib.sha256(f"{item.good} {item.weight!r} {item.note} {item.task}".encode())
    for sequence in item.sequences:
        digest.update(np.array([len(sequence.ids), *sequence.ids, *sequence.loss], dtype=np.int64).tobytes())
    return digest.digest()


def tokenizer_identity(base: Path) -> str:
    """Compute the digest of the files that decide how text becomes tokens."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model", "vocab.json")
    return key_of({name: digest_file(base / name) for name in names if (base / name).is_file()})
