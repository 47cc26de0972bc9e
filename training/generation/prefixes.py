"""Cache what stands before a request's own tokens: shared beginnings, and the learned prefix of an adapter.

Prefix tuning's adapters are keys and values as they are. Prompt tuning's are embeddings: run through the base once,
they are keys and values too. Either way the base's weights are untouched, so any number of them share it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infra.errors import CorruptArtifact
from training.generation.rows import KeyValueRows, Plan, Prefill
from training.tuners.tuner import VirtualTokens


@dataclass(frozen=True)
class Virtual:
    """Learned keys and values that stand at positions 0 to `count` - 1 of every request of one adapter."""

    rows: KeyValueRows
    count: int


class Prefixes:
    """Keys and values of shared beginnings, by adapter; the least recently used go first."""

    def __init__(self, capacity: int = 64) -> None:
        self._kept: OrderedDict[tuple[str | None, tuple[int, ...]], KeyValueRows | None] = OrderedDict()
        self._capacity = capacity

    def find(self, adapter: str | None, tokens: tuple[int, ...]) -> tuple[bool, KeyValueRows | None]:
        """Look up (whether it came before, what is kept). The first request with a beginning only leaves its mark."""
        key = (adapter, tokens)
        seen = key in self._kept
        kept = self._kept.setdefault(key, None)
        self._kept.move_to_end(key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return seen, kept

    def keep(self, adapter: str | None, tokens: tuple[int, ...], rows: KeyValueRows) -> None:
        """Remember the keys and values of a beginning."""
        self._kept[(adapter, tokens)] = rows

    def forget(self, adapter: str | None) -> None:
        """Drop what belongs to an adapter."""
        for key in [key for key in self._kept if key[0] == adapter]:
            del self._kept[key]


@torch.inference_mode()
def read_virtual(path: Path, kind: VirtualTokens, model: Any, dtype: torch.dtype) -> Virtual:
    """Read the learned prefix of the adapter in `path` as keys and values for `model`.

    Args:
        kind: what the adapter holds.

    Raises:
        CorruptArtifact: the file cannot be read, or does not fit this base.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "adapter_model.safetensors"
    try:
        learned = load_file(file)["prompt_embeddings"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CorruptArtifact(
            f"{file} holds no prompt_embeddings that can be read ({error}); copy or train the adapter again"
        ) from error
    device = next(model.parameters()).device
    learned = learned.to(device, dtype)
    config = json.loads((path / "adapter_config.json").read_text())
    count, width = int(config["num_virtual_tokens"]), learned.shape[-1]
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers = int(text.num_hidden_layers)
    expected = layers * 2 * heads * size if kind == "keys_values" else text.hidden_size
    if learned.shape != (count, expected) or not torch.isfinite(learned).all():
        raise CorruptArtifact(
            f"{file}: prompt_embeddings is {list(learned.shape)}, expected [{count}, {expected}] finite numbers; "
            "it was trained on another base"
        )
    rows = KeyValueRows(rows=1, positions=count)
    if kind == "keys_values":
        pairs = learned.view(count, layers, 2, heads, size).permute(1, 2, 3, 0, 4)
        for layer in range(layers):
            rows.layers[layer] = (pairs[layer, 0][None].contiguous(), pairs[layer, 1][None].contiguous())
    else:
        model(
            inputs_embeds=learned.view(1, count, width),
            position_ids=torch.arange(count, device=device)[None],
            use_cache=False,
            logits_to_keep=1,
            plan=Plan(cache=rows, prefills=[Prefill(0, count, 0, 0)]),
        )
    return Virtual(rows, count)
