"""Cache keys and values by rows, and attend over them, for any transformers model that uses the attention registry.

All sequences of a step lie end to end in one flat pass of shape [1, tokens]: one token for each sequence that is being
continued, the whole prompt for each new one. There is no padding in any linear layer, a new sequence costs nothing
to those that run already, and one that ends frees its row by moving the last row into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from training.generation.attention_recorder import AttentionRecorder

ATTENTION = "ratchet_rows"


class KeyValueRows:
    """Keys and values of many sequences: per layer two tensors [rows, heads, positions, size], grown by doubling."""

    def __init__(self, *, rows: int = 1, positions: int = 64) -> None:
        self.rows, self.positions = rows, positions
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def reserve(self, rows: int, positions: int) -> None:
        """Make room for `rows` sequences of `positions` tokens; what is stored stays."""
        if rows <= self.rows and positions <= self.positions:
            return
        old_rows, old_positions = self.rows, self.positions
        while self.rows < rows:
            self.rows *= 2
        while self.positions < positions:
            self.positions *= 2
        for index, pair in self.layers.items():
            grown = []
            for old in pair:
                new = old.new_zeros(self.rows, old.shape[1], self.positions, old.shape[3])
                new[:old_rows, :, :old_positions] = old
                grown.append(new)
            self.layers[index] = (grown[0], grown[1])

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The two tensors of a layer, made at first use in the shape of `key` and `value` [1, heads, tokens, size]."""
        if index not in self.layers:
            self.layers[index] = (
                key.new_zeros(self.rows, key.shape[1], self.positions, key.shape[3]),
                value.new_zeros(self.rows, value.shape[1], self.positions, value.shape[3]),
            )
        return self.layers[index]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of row `source` over row `target`."""
        for pair in self.layers.values():
            for tensor in pair:
                tensor[target, :, :length] = tensor[source, :, :length]

    def copy_from(self, other: KeyValueRows, *, row: int, length: int) -> None:
        """Copy the first `length` positions of `other`'s row 0 into `row`."""
        for index, pair in other.layers.items():
            mine = self.layer(index, *pair)
            for target, source in zip(mine, pair, strict=True):
                target[row, :, :length] = source[0, :, :length]


@dataclass(frozen=True)
class Prefill:
    """New tokens of one sequence: flat tokens [begin, end) go to positions `position` and on of `row`."""

    begin: int
    end: int
    row: int
    position: int


@dataclass
class Plan:
    """What one flat pass holds. Sequences that continue own rows 0..n-1 and have one token each."""

    cache: KeyValueRows | None
    """Where keys and values are kept; None when only this pass needs them."""
    prefills: list[Prefill]
    """Prompts in this pass."""
    positions: Tensor | None = None
    """[n] position of the continued token of each row."""
    order: Tensor | None = None
    """[n] flat index of each row's token; None when the flat order is the row order."""
    longest: int = 0
    """Largest position + 1 among the continued rows."""
    recorder: AttentionRecorder | None = None
    """Stands in for the attention where a pass is only looked at (training/generation/attention_check.py)."""
    masks: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    """Attention masks, made once and used by every layer."""

    def continue_mask(self, window: int | None) -> Tensor:
        """[n, 1, 1, longest]: which stored positions each continued row may see."""
        assert self.positions is not None
        key = (0, window or 0)
        if key not in self.masks:
            column = torch.arange(self.longest, device=self.positions.device)
            allowed = column[None] <= self.positions[:, None]
            if window is not None:
                allowed &= column[None] > self.positions[:, None] - window
            self.masks[key] = allowed[:, None, None]
        return self.masks[key]

    def prefill_mask(self, new: int, earlier: int, window: int | None, device: torch.device) -> Tensor:
        """[new, earlier + new]: causal, with `earlier` positions before the new ones."""
        key = (1, new, earlier, window or 0)
        if key not in self.masks:
            row = torch.arange(earlier, earlier + new, device=device)[:, None]
            column = torch.arange(earlier + new, device=device)[None]
            allowed = column <= row
            if window is not None:
                allowed &= column > row - window
            self.masks[key] = allowed
        return self.masks[key]


def rows_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Plan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend over a flat pass; query [1, heads, tokens, size], key and value with their own number of heads.

    Args:
        plan: what the pass holds.
        options: scaling and sliding_window as transformers gives them, and what is not computed here: softcap, s_aux
            (sinks), position_bias.

    Returns:
        [1, tokens, heads, size], as transformers' attention registry asks.
    """
    if plan is None:
        raise RuntimeError("nothing was handed on to the attention; a model loaded for it is called through Generator")
    softcap, sinks = options.get("softcap"), options.get("s_aux")
    if plan.recorder is not None:
        masks = {"a mask of its own": attention_mask, "biases": options.get("position_bias")}
        return plan.recorder.attend(module, query, value, {"soft capping": softcap, "sinks": sinks, **masks}), None
    if softcap is not None or sinks is not None:
        raise RuntimeError(
            "attention with soft capping or sinks is not supported by the embedded engine; serve by vLLM"
        )
    stored = plan.cache.layer(module.layer_idx, key, value) if plan.cache is not None else None
    output = torch.empty(1, query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype, device=query.device)
    layer = _Layer(query, key, value, stored, options.get("scaling"), options.get("sliding_window"), output)
    for part in plan.prefills:
        layer.prefill(plan, part)
    if plan.positions is not None:
        layer.continue_rows(plan, plan.positions)
    return output, None


@dataclass(frozen=True)
class _Layer:
    """One layer's attention in one pass."""

    query: Tensor
    key: Tensor
    value: Tensor
    stored: tuple[Tensor, Tensor] | None
    """The layer's keys and values in the cache."""
    scaling: float | None
    window: int | None
    output: Tensor

    @property
    def groups(self) -> int:
        """Query heads to a key head."""
        return self.query.shape[1] // self.key.shape[1]

    def prefill(self, plan: Plan, part: Prefill) -> None:
        """Attend from new tokens of one sequence to each other and to what is stored of it."""
        query, window = self.query[:, :, part.begin : part.end], self.window
        key, value = self.key[:, :, part.begin : part.end], self.value[:, :, part.begin : part.end]
        length = part.end - part.begin
        if self.stored is not None:
            stop = part.position + length
            keys, values = self.stored
            keys[part.row, :, part.position : stop] = key[0]
            values[part.row, :, part.position : stop] = value[0]
            if part.position:
                key, value = keys[part.row : part.row + 1, :, :stop], values[part.row : part.row + 1, :, :stop]
        masked = bool(part.position) or (window is not None and length > window)
        mask = plan.prefill_mask(length, part.position, window, query.device) if masked else None
        if self.groups > 1:
            key = key.repeat_interleave(self.groups, dim=1)
            value = value.repeat_interleave(self.groups, dim=1)
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=self.scaling
        )
        self.output[:, part.begin : part.end] = attended.transpose(1, 2)

    def continue_rows(self, plan: Plan, positions: Tensor) -> None:
        """Attend from the one new token of each continued row to all that is stored of it."""
        assert self.stored is not None
        keys, values = self.stored
        count, heads = len(positions), self.key.shape[1]
        query, key, value = (self._of_rows(tensor[0], plan, count) for tensor in (self.query, self.key, self.value))
        rows = torch.arange(count, device=query.device)
        keys[rows, :, positions] = key
        values[rows, :, positions] = value
        # The query heads that share a key head become "positions" of one head, so the keys are never repeated.
        attended = scaled_dot_product_attention(
            query.reshape(count, heads, self.groups, query.shape[-1]),
            keys[:count, :, : plan.longest],
            values[:count, :, : plan.longest],
            attn_mask=plan.continue_mask(self.window),
            scale=self.scaling,
        ).reshape(count, self.query.shape[1], self.value.shape[3])
        if plan.order is not None:
            self.output[0].index_copy_(0, plan.order, attended)
        else:
            self.output[0, :count] = attended

    @staticmethod
    def _of_rows(flat: Tensor, plan: Plan, count: int) -> Tensor:
        """The continued tokens of [heads, tokens, size] in the order of their rows: [count, heads, size]."""
        tokens = flat.index_select(1, plan.order) if plan.order is not None else flat[:, :count]
        return tokens.transpose(0, 1)


def register() -> None:
    """Make the attention known to transformers. Harmless to repeat."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, rows_attention)
