"""Check a loaded model: do its tokens meet in attention through the registry, and nowhere else?

The attention is made to say nothing for two short passes that differ in their first token only. Whatever then still
differs behind that token came another way: by a state-space layer, a convolution, a recurrent unit, a shifted token, or
an attention of the model's own. This asks for no list of names, so it holds for models that nobody has seen yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_TOKENS = 6
_NOISE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""How much of a token's effect on itself may be found behind it: rounding, where experts are given other rows to do."""
_NOISE_OF_HALVES = 2e-2


@dataclass
class AttentionRecorder:
    """Stand in for the attention and record what it is called with."""

    layers: set[int] = field(default_factory=set)
    """Layers whose attention came here."""
    unsupported: set[str] = field(default_factory=set)
    """What they want that the generator does not compute."""

    def attend(self, module: Any, query: Tensor, value: Tensor, options: Mapping[str, object]) -> Tensor:
        """Nothing, in the shape of an answer: [1, tokens, heads, size]."""
        self.layers.add(int(module.layer_idx))
        self.unsupported |= {name for name, given in options.items() if given is not None}
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])


@torch.inference_mode()
def why_not_attention(model: Any, device: torch.device) -> str | None:
    """Tell why the generator would be wrong for `model`, loaded with its attention; None where it is right."""
    from training.generation.lanes import forward
    from training.generation.rows import Plan

    recorder = AttentionRecorder()
    first = list(range(1, _TOKENS + 1))
    second = [first[-1] + 1, *first[1:]]
    try:
        one, other = (
            forward(model, ids, list(range(_TOKENS)), range(_TOKENS), Plan(None, [], recorder=recorder), device).float()
            for ids in (first, second)
        )
    except (TypeError, RuntimeError, AttributeError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"its code does not run with the generator's attention ({first_line})"
    if recorder.unsupported:
        return f"its attention uses {' and '.join(sorted(recorder.unsupported))}"
    moved = (one - other).abs().amax(-1)
    if float(moved[1:].max()) > _NOISE.get(model.dtype, _NOISE_OF_HALVES) * float(moved[0]):
        return "its tokens meet outside attention (by a recurrent, convolutional or other layer)"
    return None if recorder.layers else "its attention does not go through transformers' registry"
