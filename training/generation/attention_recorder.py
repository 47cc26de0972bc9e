"""Record what a model asks of its attention, and attend to nothing (training/generation/attention_check.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


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
