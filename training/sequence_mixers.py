"""Refuse models that Ratchet's own generator would be wrong for, as far as their config tells.

It is right where all tokens meet in attention: it lays sequences end to end and keeps keys and values by row, so what a
token hears of those before it must come through full or sliding-window attention. A state that is carried along (Mamba,
linear attention, short convolutions, recurrent units) would leak from one sequence into the next and be lost between
two steps, and attention in chunks would be computed as full attention: fluent, and wrong.
training/generation/attention_check.py checks the loaded model itself; here only config.json is read, so that it can be
said before anything is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import UserError

ATTENTION_KINDS = frozenset({"full_attention", "sliding_attention", "attention"})
"""Kinds of layer, as configs name them, whose tokens meet in attention that the generator computes."""

_LISTS = ("layer_types", "layers_block_type", "block_types")
"""Fields that name the kind of every layer."""
_SINKS = frozenset({"gpt_oss"})
"""Types of model whose attention has sinks; no field of their configs says so, and others are found when loaded."""
_CARRIED = (
    "mamba",
    "ssm_",
    "conv_",
    "linear_",
    "recurrent",
    "lru_",
    "rwkv",
    "time_mix",
    "mlstm",
    "slstm",
    "short_conv",
)
"""Beginnings of the fields of layers that carry a state."""


def refusal(model: str, reason: str) -> str:
    """Word the refusal of a model for a person: `reason` is why the generator would be wrong."""
    return (
        f"{model}: {reason}; Ratchet's own generator, which evaluates, samples and serves, would be wrong for it; "
        "use a base whose every layer is full or sliding-window attention, such as those of Llama, Qwen2 and "
        "Qwen3, Mistral, Gemma 3, Phi-3, OLMo 2 or Granite 3"
    )


def why_not_generated(config: Mapping[str, Any]) -> str | None:
    """Tell why the generator would be wrong for a model with this config; None where nothing in it says so."""
    text = config.get("text_config") or config
    if text.get("attn_logit_softcapping") or text.get("model_type") in _SINKS:
        return "its attention has soft capping or sinks"
    named = [kind for field in _LISTS for kind in text.get(field) or () if isinstance(kind, str)]
    foreign = sorted(set(named) - ATTENTION_KINDS)
    if foreign:
        return f"it has layers of kind {', '.join(foreign)}"
    if named:
        return None  # every layer is named, and all are attention: what else is set is of layers that it does not have
    if text.get("attention_chunk_size"):
        return f"its attention is cut into chunks (attention_chunk_size {text['attention_chunk_size']})"
    carried = sorted(field for field, value in text.items() if field.startswith(_CARRIED) and value)
    if carried:
        return f"it has layers that carry a state from token to token ({', '.join(carried[:3])})"
    return None


def check_folder(folder: Path) -> None:
    """Check the config of a model's folder.

    Raises:
        UserError: the generator would be wrong for such a model.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return  # whoever loads the folder says what is wrong with it
    reason = why_not_generated(config)
    if reason is not None:
        raise UserError(refusal(f"{folder} (model_type {config.get('model_type', 'not given')})", reason))
