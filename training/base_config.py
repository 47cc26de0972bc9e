"""Read the shape of a base model's text part from its config.json."""

from __future__ import annotations

import json
from pathlib import Path

from infra.errors import UserError
from infra.stored_model import Stored


class TextConfig(Stored):
    """What training reads in config.json of the text model; the rest is kept as it is."""

    hidden_size: int
    """Width."""
    num_hidden_layers: int
    """Transformer blocks."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int | None = None
    """Key and value heads; as many as queries where none are given."""
    head_dim: int | None = None
    """Width of a head; the width over the heads where none is given."""

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def kv_width(self) -> int:
        """Width of a block's keys, and of its values."""
        return self.head_size * (self.num_key_value_heads or self.num_attention_heads)


def shape_config(folder: Path) -> TextConfig:
    """Read the part of a base model's config.json that gives the shape of its text model.

    Raises:
        UserError: it does not say what training reads there: a model of a kind that Ratchet does not train.
    """
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    wanted = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    missing = [name for name in wanted if name not in text]
    if missing:
        raise UserError(
            f"{folder / 'config.json'} (model_type {text.get('model_type', 'not given')}) has no "
            f"{', '.join(missing)}; expected a model whose config gives {', '.join(wanted)}, as those of Llama, Qwen "
            "or SmolLM do and those of GPT-2's kind (n_embd) do not; name another base_model"
        )
    return TextConfig.model_validate(text)
