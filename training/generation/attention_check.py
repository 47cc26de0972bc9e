"""Check a loaded model: do its tokens meet in attention through the registry, and nowhere else?

The attention is made to say nothing for two short passes that differ in their first token only. Whatever then still
differs behind that token came another way: by a state-space layer, a convolution, a recurrent unit, a shifted token, or
an attention of the model's own. This asks for no list of names, so it holds for models that nobody has seen yet.
"""

from __future__ import annotations

from typing import Any

import torch

from training.generation.attention_recorder import AttentionRecorder
from training.generation.lanes import forward
from training.generation.rows import Plan

_TOKENS = 6
_NOISE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""How much of a token's effect on itself may be found behind it: rounding, where experts are given other rows to do."""
_NOISE_OF_HALVES = 2e-2


@torch.inference_mode()
def why_not_attention(model: Any, device: torch.device) -> str | None:
    """Tell why the generator would be wrong for `model`, loaded with its attention; None where it is right."""
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
