"""A base model of real size that takes no room: its config and its weights' headers, before a hole in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_large_base(folder: Path, *, layers: int = 32) -> Path:
    """A Llama's folder in bfloat16 (by default of 6.7 billion parameters) that can be looked at and not be loaded."""
    width, inner, words = 4096, 11008, 32000
    linears = [(f"self_attn.{name}_proj", width, width) for name in "qkvo"]
    linears += [("mlp.gate_proj", inner, width), ("mlp.up_proj", inner, width), ("mlp.down_proj", width, inner)]
    shapes = {"model.embed_tokens.weight": (words, width), "lm_head.weight": (words, width)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": (rows, columns) for name, rows, columns in linears}
    header: dict[str, Any] = {}
    end = 0
    for name, (rows, columns) in shapes.items():
        begin, end = end, end + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}
    folder.mkdir(parents=True)
    said = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(said).to_bytes(8, "little") + said)
        file.truncate(8 + len(said) + end)
    config = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "vocab_size": words,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
