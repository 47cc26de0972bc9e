"""Run the output layer only where it is needed: log-probabilities without a table of logits.

A 49k vocabulary dominates a small model. Here the final hidden states of the wanted positions are taken off just
before the output layer, whatever stands around it (adapters, learned prefixes, packed rows), and turned into what a
loss reads:

- log-probabilities of given tokens, in chunks of rows. Their gradient is a fixed vector for each token,
  W[target] - p W, so it is formed in the forward pass while the probabilities are at hand, and the backward pass costs
  nothing;
- whole logits, for losses that compare distributions;
- the hidden states themselves, for value and reward heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROWS = 128
"""Rows of logits formed at once: 128 x 49,152 float32 values are 25 MB."""

PLAIN_OUTPUT = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "phi3", "gemma"})
"""Model types whose logits are the output layer's product and nothing else (no scaling, no soft cap)."""

Consume = Callable[[Tensor, nn.Module], None]
"""Takes [rows, columns, width] hidden states and the output layer."""


class TokenLogps(torch.autograd.Function):
    """log softmax(hidden W')[target] for each row, with a frozen W."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """[n, width] hidden states, [vocabulary, width] weights, [n] targets -> [n] float32 log-probabilities."""
        wanted = hidden.requires_grad
        logps = hidden.new_empty(len(targets), dtype=torch.float32)
        slopes = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(targets), ROWS):
            rows = slice(start, start + ROWS)
            own = targets[rows]
            logits = hidden[rows] @ weight.T
            # softmax and log_softmax are one vectorised pass each on a CPU; logsumexp and exp are several times slower.
            logps[rows] = torch.log_softmax(logits, -1, dtype=torch.float32).gather(1, own[:, None])[:, 0]
            if slopes is not None:
                # d logp / d hidden; the loss only scales it. One-hot less softmax is formed in float32: in bfloat16 the
                # difference of a token that is nearly certain, or that of two nearly equal rows, would round away.
                share = torch.softmax(logits, -1, dtype=torch.float32).neg_()
                share[torch.arange(len(own), device=own.device), own] += 1
                slopes[rows] = share.to(weight.dtype) @ weight
        ctx.slopes = slopes
        return logps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Multiply the kept slopes, each by its token's gradient."""
        return gradients[0][:, None].to(ctx.slopes.dtype) * ctx.slopes, None, None


class _Tap(nn.Module):
    """Stands in for the output layer during one forward pass and hands its input on."""

    def __init__(self, layer: nn.Module, consume: Consume) -> None:
        super().__init__()
        self._layer = [layer]  # in a list: not a submodule, so nothing else sees it twice
        self._consume = consume

    def forward(self, hidden: Tensor) -> Tensor:
        self._consume(hidden, self._layer[0])
        return hidden.new_empty((*hidden.shape[:-1], 0))


@contextmanager
def tapped(model: Any, consume: Consume) -> Iterator[None]:
    """Tap the output layer: within, a pass through `model` hands `consume` the hidden states before it, and no logits.

    `consume` runs inside the pass, where a sharded model's weights are together.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    layer = inner.get_output_embeddings()
    [name] = [name for name, module in inner.named_children() if module is layer]
    inner._modules[name] = _Tap(layer, consume)
    try:
        yield
    finally:
        inner._modules[name] = layer


def is_plain(model: Any) -> bool:
    """Tell whether this model's logits may be computed from its output layer alone."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.config.model_type in PLAIN_OUTPUT


def logps_of(hidden: Tensor, layer: Any, targets: Tensor) -> Tensor:
    """Compute [n] float32 log-probabilities of `targets` after [n, width] hidden states."""
    plain: bool = type(layer) is nn.Linear
    if plain and layer.bias is None and not layer.weight.requires_grad:
        logps: Tensor = TokenLogps.apply(hidden, layer.weight, targets)  # type: ignore[no-untyped-call]
        return logps
    return -cross_entropy(layer(hidden).float(), targets, reduction="none")
