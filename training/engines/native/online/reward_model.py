"""Load the reward model that a reward stage made, and score answers with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from training.chat.template import Tokens
from training.tuners.adapter_kinds import virtual_tokens_of
from training.weights.heads import Head, attach_head

if TYPE_CHECKING:
    from training.engines.native.packing.items import Item


class RewardModel:
    """Scores whole conversations, standardised over the pairs it was trained on. Frozen, in evaluation mode.

    Args:
        base: folder of the base model; weights: folder of the stage's adapter or model, with `head.safetensors`.

    Raises:
        CorruptArtifact: the folder holds no reward model of this base.
    """

    def __init__(
        self, base: Path, weights: Path, kind: Literal["adapter", "model"], dtype: str, *, tokens_per_pass: int = 4096
    ) -> None:
        from training.weights.loading import load_adapter, load_plain, placed

        plain = load_plain(base if kind == "adapter" else weights, dtype)
        self.model: Any = load_adapter(plain, weights, False) if kind == "adapter" else plain
        self.model.requires_grad_(False)
        self.head: Head = attach_head(self.model)
        self.head.load(weights)
        self.model = placed(self.model)
        self.tokens_per_pass = tokens_per_pass

    def score(self, sequences: Sequence[tuple[int, ...]]) -> list[float]:
        """Score each sequence of tokens that ends in an answer."""
        return scores(self.model.eval(), self.head, sequences, self.tokens_per_pass)


@torch.no_grad()
def scores(
    model: Any, head: Head, sequences: Sequence[tuple[int, ...]], tokens_per_pass: int, one_row: bool = False
) -> list[float]:
    """Compute the head's scalar at the last token of each sequence."""
    from training.engines.native.packing.forward import forward
    from training.engines.native.packing.items import Item, group_by_tokens
    from training.engines.native.packing.rows import pack

    items = [Item((Tokens(ids, (False,) * len(ids)),)) for ids in sequences]
    values: list[float] = []
    for group in group_by_tokens(items, tokens_per_pass):
        rows = pack([items[i].sequences[0] for i in group], 1, one_row, 0, at_ends=True)
        hidden = forward(model, rows, virtual_tokens(model), logps=False, hidden=True).hidden
        assert hidden is not None
        values += head(hidden).tolist()
    return values


def virtual_tokens(model: Any) -> int:
    """Count the positions that prompt tuning puts before every row (prefix tuning's are in the cache)."""
    config = model.peft_config["default"] if hasattr(model, "peft_config") else None
    if config is None or virtual_tokens_of(getattr(config.peft_type, "value", config.peft_type)) != "embeddings":
        return 0
    return int(config.num_virtual_tokens)


def standardise(head: Head, chosen: Sequence[float], rejected: Sequence[float]) -> None:
    """Make the head give scores with mean 0 and deviation 1 over these pairs, as ppo wants its rewards."""
    both = torch.tensor([*chosen, *rejected])
    head.mean.copy_(both.mean())
    head.spread.copy_(both.std().clamp(min=1e-3))


def pairs_of(items: Sequence[Item], limit: int = 256) -> list[tuple[int, ...]]:
    """List chosen and rejected sequences of the first items, in turn."""
    return [tokens.ids for item in items[:limit] for tokens in item.sequences]
