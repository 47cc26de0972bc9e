"""Attend over sequences that lie end to end in one row: causal within each, blind across, no mask, no padding.

Registered with transformers under `PACKED`. A mask over the whole row would cost the square of its length; here each
sequence pays for itself only. On a GPU it is the same loop over sequences: no variable-length kernel is used.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

PACKED = "ratchet_packed"

SHORT = 512
"""Tokens up to which a sequence in bfloat16 is attended by plain products on a CPU."""

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
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence, by transformers' interface: [1, heads, tokens, width] -> [1, tokens, heads, width].

    Args:
        sequence_bounds: 0, end of the first sequence, end of the second, ..., number of tokens.
        options: sliding_window, and what is not computed here: softcap, s_aux (sinks).
    """
    if attention_mask is not None or not sequence_bounds:
        raise ValueError("packed attention needs sequence_bounds and takes no mask")
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise ValueError("packed attention knows neither soft-capping nor sinks; use padded rows for this model")
    sliding_window: int | None = options.get("sliding_window")
    dropout = dropout if module.training else 0.0
    groups = getattr(module, "num_key_value_groups", 1)
    lengths = [end - start for start, end in pairwise(sequence_bounds)]
    outputs = []
    # Split, not sliced: the gradient is put together once, not added to zeros for every sequence.
    for q, k, v in zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), strict=True):
        length = q.shape[2]
        window = sliding_window if sliding_window is not None and length > sliding_window else None
        if window is None and not dropout and q.device.type == "cpu" and _is_short(length, q.dtype):
            outputs.append(_short(q, k, v, groups, q.shape[-1] ** -0.5 if scaling is None else scaling))
            continue
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mask = None
        if window is not None:
            at = torch.arange(length, device=q.device)
            gap = at[:, None] - at[None, :]
            mask = (gap >= 0) & (gap < window)
        outputs.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _is_short(length: int, dtype: torch.dtype) -> bool:
    """Whether plain products beat torch's flash kernel for CPUs: in bfloat16 its backward pass takes 2 to 3 times as
    long at 75 to 300 tokens, and is ahead from about 1,000 on (measured with forward and backward pass)."""
    return dtype == torch.bfloat16 and length <= SHORT


def _short(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, groups: int, scaling: float) -> torch.Tensor:
    """Causal attention of one sequence; heads that share a key lie end to end, so nothing is repeated.

    q [1, heads, length, width], k and v [1, heads / groups, length, width] -> like q.
    """
    length, width = q.shape[2:]
    ahead = torch.full((length, length), -torch.inf, dtype=q.dtype).triu(1).repeat(groups, 1)
    together = q.reshape(-1, groups * length, width)
    scores = torch.baddbmm(ahead, together, k[0].transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1), v[0]).view(q.shape)


def register() -> None:
    """Make `PACKED` known to transformers. Asking twice is harmless."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
