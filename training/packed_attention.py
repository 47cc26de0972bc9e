"""Attention over sequences that lie end to end in one row: causal within each, blind across, no mask, no padding.

Registered with transformers under `PACKED`. A mask over the whole row would cost the square of its length; here each
sequence pays for itself only. On CUDA the same bounds can feed a variable-length flash kernel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

PACKED = "ratchet_packed"

PACKING_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "phi3", "granite", "gemma"})
"""Model types whose every token mixer is attention through the registry. Others (state-space layers, soft-capped or
sink attention) would leak between sequences or be computed wrongly: they get padded rows."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequence_bounds: tuple[int, ...] = (),
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [1, heads, tokens, width] in, [1, tokens, heads, width] out.

    Args:
        sequence_bounds: 0, end of the first sequence, end of the second, ..., number of tokens.
    """
    if attention_mask is not None or not sequence_bounds:
        raise ValueError("packed attention needs sequence_bounds and takes no mask")
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("packed attention knows neither soft-capping nor sinks; use padded rows for this model")
    groups = getattr(module, "num_key_value_groups", 1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs = []
    for start, end in pairwise(sequence_bounds):
        mask = None
        if sliding_window is not None and end - start > sliding_window:
            at = torch.arange(end - start, device=query.device)
            gap = at[:, None] - at[None, :]
            mask = (gap >= 0) & (gap < sliding_window)
        outputs.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, start:end],
                value[:, :, start:end],
                attn_mask=mask,
                dropout_p=dropout if module.training else 0.0,
                is_causal=mask is None,
                scale=scaling,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def register() -> None:
    """Make `PACKED` known to transformers. Asking twice is harmless."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
