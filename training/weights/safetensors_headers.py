"""Read safetensors headers: which files of a model's folder hold its weights, and what is in them.

A repository may carry the same weights twice, such as Mistral's `consolidated.safetensors` beside the files that
transformers loads. What transformers would load is what counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors that transformers loads from a model's folder, in order of their names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text())["weight_map"].values()
        return [file for name in sorted(set(named)) if (file := folder / name).is_file()]
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("consolidated"))


def tensor_sizes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List name and sizes of every tensor in them."""
    from safetensors import safe_open

    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # not a dictionary
                yield key, tuple(int(size) for size in tensors.get_slice(key).get_shape())
