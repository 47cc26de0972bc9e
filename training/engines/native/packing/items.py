"""Hold tokenised training items: what a loss sees of one example, kept on disk as flat columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifact import atomic_write
from training.chat.template import Tokens

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Item:
    """What the loss sees of one example."""

    sequences: tuple[Tokens, ...]
    """As many as the objective wants, in its order."""
    weight: float = 1.0
    good: bool = True
    """Whether it is an example of what is wanted."""
    reference: tuple[float, ...] = field(default=())
    """Summed log-probability of each sequence under the model that the stage starts from, where needed."""
    columns: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Further numbers, one for each loss token of its live sequences in order (advantages, values, ...)."""
    note: str = ""
    """JSON for objectives that grade or rewrite answers: what is known of the right answer."""
    task: str = ""
    """Task that the example belongs to."""
    made_at: float = 0.0
    """Time of the example, in seconds since 1970."""


@dataclass(frozen=True)
class TokenisedFile:
    """All items of one file, and how many examples were left out and why."""

    items: list[Item]
    left_out: dict[str, int]


def save_items(file: Path, tokenised: TokenisedFile) -> None:
    """Save items as flat columns in safetensors: small, quick to read, and nothing in it can run."""
    import numpy as np
    from safetensors.numpy import save

    sequences = [s for item in tokenised.items for s in item.sequences]
    columns: dict[str, np.ndarray[Any, Any]] = {
        "ids": np.array([i for s in sequences for i in s.ids], dtype=np.int32),
        "loss": np.array([flag for s in sequences for flag in s.loss], dtype=np.uint8),
        "lengths": np.array([len(s.ids) for s in sequences], dtype=np.int64),
        "per_item": np.array([len(item.sequences) for item in tokenised.items], dtype=np.int64),
        "weight": np.array([item.weight for item in tokenised.items], dtype=np.float64),
        "good": np.array([item.good for item in tokenised.items], dtype=np.uint8),
        "made_at": np.array([item.made_at for item in tokenised.items], dtype=np.float64),
    }
    texts = {name: json.dumps([getattr(item, name) for item in tokenised.items]) for name in ("note", "task")}
    atomic_write(file, save(columns, metadata={"left_out": json.dumps(tokenised.left_out), **texts}))


def load_items(file: Path) -> TokenisedFile:
    """Load what `save_items` wrote."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as columns:
        texts = columns.metadata()
        left_out, notes, tasks = (json.loads(texts[name]) for name in ("left_out", "note", "task"))
        ids, loss, lengths, per_item, weight, good, made_at = (
            columns.get_tensor(name) for name in ("ids", "loss", "lengths", "per_item", "weight", "good", "made_at")
        )
    ends = np.cumsum(lengths)
    sequences = [
        Tokens(tuple(ids[end - length : end].tolist()), tuple(loss[end - length : end].astype(bool).tolist()))
        for end, length in zip(ends, lengths, strict=True)
    ]
    stops = np.cumsum(per_item)
    return TokenisedFile(
        [
            Item(tuple(sequences[stop - count : stop]), float(w), bool(g), note=note, task=task, made_at=float(at))
            for stop, count, w, g, note, task, at in zip(
                stops, per_item, weight, good, notes, tasks, made_at, strict=True
            )
        ],
        left_out,
    )


def with_reference(items: Sequence[Item], scores: Sequence[Sequence[float]]) -> list[Item]:
    """Give items their log-probabilities under the reference."""
    return [replace(item, reference=tuple(s)) for item, s in zip(items, scores, strict=True)]


def group_by_tokens(items: Sequence[Item], tokens_per_pass: int) -> list[list[int]]:
    """Split items, in order, into groups whose sequences together hold at most `tokens_per_pass` tokens.

    An item is never split; one that is longer alone makes a group of its own.
    """
    groups: list[list[int]] = []
    room = 0
    for index, item in enumerate(items):
        size = sum(len(s.ids) for s in item.sequences)
        if not groups or size > room:
            groups.append([])
            room = tokens_per_pass
        groups[-1].append(index)
        room -= size
    return groups
