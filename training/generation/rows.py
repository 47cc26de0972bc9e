"""Key-value cache by rows, and the attention over it, for any transformers model that uses the attention registry.

All sequences of a step lie end to end in one flat pass of shape [1, tokens]: one token for each sequence that is being
continued, the whole prompt for each new one. There is no padding in any linear layer, a new sequence costs nothing
to those that run already, and one that ends frees its row by moving the last row into it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from training.generation.attention_check import AttentionRecorder

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
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of a flat pass; query [1, heads, tokens, size], key and value with their own number of heads.

    Returns:
        [1, tokens, heads, size], as transformers' attention registry asks.
    """
    if plan is None:
        raise RuntimeError("nothing was handed on to the attention; a model loaded for it is called through Generator")
    if plan.recorder is not None:
        options = {
            "soft capping": softcap,
            "sinks": s_aux,
            "a mask of its own": attention_mask,
            "biases": position_bias,
        }
        return plan.recorder.attend(module, query, value, options), None
    if softcap is not None or s_aux is not None:
        raise RuntimeError(
            "attention with soft capping or sinks is not supported by the embedded engine; serve by vLLM"
        )
    groups = query.shape[1] // key.shape[1]
    stored = plan.cache.layer(module.layer_idx, key, value) if plan.cache is not None else None
    output = torch.empty(1, query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype, device=query.device)

    for part in plan.prefills:
        part_query = query[:, :, part.begin : part.end]
        part_key, part_value = key[:, :, part.begin : part.end], value[:, :, part.begin : part.end]
        length = part.end - part.begin
        if stored is not None:
            stop = part.position + length
            stored[0][part.row, :, part.position : stop] = part_key[0]
            stored[1][part.row, :, part.position : stop] = part_value[0]
            if part.position:
                part_key = stored[0][part.row : part.row + 1, :, :stop]
                part_value = stored[1][part.row : part.row + 1, :, :stop]
        masked = bool(part.position) or (sliding_window is not None and length > sliding_window)
        mask = plan.prefill_mask(length, part.position, sliding_window, query.device) if masked else None
        if groups > 1:
            part_key = part_key.repeat_interleave(groups, dim=1)
            part_value = part_value.repeat_interleave(groups, dim=1)
        attended = scaled_dot_product_attention(
            part_query, part_key, part_value, attn_mask=mask, is_causal=mask is None, scale=scaling
        )
        output[:, part.begin : part.end] = attended.transpose(1, 2)

    if plan.positions is not None:
        assert stored is not None
        count = len(plan.positions)
        flat = (query[0], key[0], value[0])
        if plan.order is not None:
            flat = tuple(tensor.index_select(1, plan.order) for tensor in flat)  # type: ignore[assignment]
        else:
            flat = tuple(tensor[:, :count] for tensor in flat)  # type: ignore[assignment]
        row_query, row_key, row_value = (tensor.transpose(0, 1) for tensor in flat)
        rows = torch.arange(count, device=query.device)
        stored[0][rows, :, plan.positions] = row_key
        stored[1][rows, :, plan.positions] = row_value
        # The query heads that share a key head become "positions" of one head, so the keys are never repeated.
        attended = scaled_dot_product_attention(
            row_query.reshape(count, key.shape[1], groups, query.shape[3]),
            stored[0][:count, :, : plan.longest],
            stored[1][:count, :, : plan.longest],
            attn_mask=plan.continue_mask(sliding_window),
            scale=scaling,
        ).reshape(count, query.shape[1], value.shape[3])
        if plan.order is not None:
            output[0].index_copy_(0, plan.order, attended)
        else:
            output[0, :count] = attended
    return output, None


def register() -> None:
    """Make the attention known to transformers. Harmless to repeat."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, rows_attention)
