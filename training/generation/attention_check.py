"""Look at a loaded model: do its tokens meet in attention through the registry, and nowhere else?

The attention is made to say nothing for two short passes that differ in their first token only. Whatever then still
differs behind that token came another way: by a state-space layer, a convolution, a recurrent unit, a shifted token, or
an attention of the model's own. This asks for no list of names, so it holds for models that nobody has seen yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_TOKENS = 6
_NOISE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""How much of a token's effect on itself may be found behind it: rounding, where experts are given other rows to do."""
_NOISE_OF_HALVES = 2e-2


@dataclass
class Watch:
    """Stands in for the attention and notes what it is asked for."""

    layers: set[int] = field(default_factory=set)
    """Layers whose attention came here."""
    odd: set[str] = field(default_factory=set)
    """What they asked for that the generator does not compute."""

    def attend(self, module: Any, query: Tensor, value: Tensor, asked: dict[str, Any]) -> Tensor:
        """Nothing, in the shape of an answer: [1, tokens, heads, size]."""
        self.layers.add(int(module.layer_idx))
        self.odd |= {name for name, given in asked.items() if given is not None}
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])


@torch.inference_mode()
def why_not_attention(model: Any, device: torch.device) -> str | None:
    """Why the generator would be wrong for `model`, loaded with its attention; None where it is right."""
    from training.generation.batch import forward
    from training.generation.rows import Plan

    watch = Watch()
    first = list(range(1, _TOKENS + 1))
    second = [first[-1] + 1, *first[1:]]
    try:
        one, other = (
            forward(model, ids, list(range(_TOKENS)), range(_TOKENS), Plan(None, [], watch=watch), device).float()
            for ids in (first, second)
        )
    except (TypeError, RuntimeError, AttributeError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        said = str(error).strip().splitlines()[:1] or [type(error).__name__]
        return f"its code does not run with the generator's attention ({said[0]})"
    if watch.odd:
        return f"its attention uses {' and '.join(sorted(watch.odd))}"
    moved = (one - other).abs().amax(-1)
    if float(moved[1:].max()) > _NOISE.get(model.dtype, _NOISE_OF_HALVES) * float(moved[0]):
        return "its tokens meet outside attention (by a recurrent, convolutional or other layer)"
    return None if watch.layers else "its attention does not go through transformers' registry"
