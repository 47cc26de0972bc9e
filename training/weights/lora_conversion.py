"""Adapters that are a LoRA in other words, written as plain LoRA: for engines that know nothing else, such as vLLM.

A recipe asks for it by the tuner option `save_as_lora`.

- VeRA: W + diag(b) B diag(d) A is the LoRA with B' = diag(b) B and A' = diag(d) A, at VeRA's own rank.
- AdaLoRA: W + (alpha / r) P Lambda Q is the LoRA with B' = P Lambda and A' = Q, each layer at the rank it was left.
- LoRA-FA and QLoRA save plain LoRA; PiSSA and OLoRA were converted when they were saved (training/tuners/lora.py).

The others are no LoRA: DoRA's norm and IA3's factors change a weight by more than a term of low rank, and bottlenecks,
prefixes and prompts change no weight at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import CorruptArtifact, UserError

if TYPE_CHECKING:
    from torch import Tensor

CONVERTS = ("VERA", "ADALORA")
"""Kinds of adapter, in peft's words, that equal a LoRA."""


def save_as_lora(model: Any, folder: Path) -> None:
    """Save the adapter on `model` (peft's) as the plain LoRA that equals it."""
    import tempfile

    import torch

    from training.weights.files import save_weights

    inner = model.get_base_model()
    widths = {
        name.removesuffix(".base_layer"): module.in_features
        for name, module in inner.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    with tempfile.TemporaryDirectory() as own:
        save_weights(model, Path(own))
        _convert(Path(own), widths, folder)


def to_plain_lora(adapter: Path, base: Path, out: Path) -> None:
    """Write the plain LoRA that equals an adapter.

    Args:
        adapter: its folder.
        base: folder of the base model, for the shapes of its layers.
        out: folder to write to.

    Raises:
        UserError: its kind equals no LoRA, or it is one already.
        CorruptArtifact: its file cannot be read.
    """
    _convert(adapter, _widths_of(base), out)


def _convert(adapter: Path, widths: Mapping[str, int], out: Path) -> None:
    from peft import LoraConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    config = json.loads((adapter / "adapter_config.json").read_text())
    kind = config.get("peft_type")
    if kind not in CONVERTS:
        reason = "it is one already" if kind == "LORA" else "it equals none"
        raise UserError(f"{adapter} holds an adapter of kind {kind}, which cannot be converted to LoRA: {reason}")
    try:
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise CorruptArtifact(f"the adapter in {adapter} cannot be read ({error}); train it again") from error
    layers = _vera(tensors, widths) if kind == "VERA" else _adalora(tensors, config)
    out.mkdir(parents=True, exist_ok=True)
    ranks = {name: down.shape[0] for name, (down, _) in layers.items()}
    rank = max(ranks.values(), default=1)
    others = {name: r for name, r in ranks.items() if r != rank}
    save_file(
        {
            f"base_model.model.{name}.lora_{side}.weight": tensor.contiguous()
            for name, pair in layers.items()
            for side, tensor in zip("AB", pair, strict=True)
        },
        out / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    LoraConfig(
        r=rank,
        lora_alpha=rank,  # the scale is in the matrices
        rank_pattern=others,
        alpha_pattern=others,
        target_modules=sorted(layers),
        base_model_name_or_path=config.get("base_model_name_or_path"),
        task_type="CAUSAL_LM",
        inference_mode=True,
    ).save_pretrained(out)


def _vera(tensors: dict[str, Tensor], widths: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each layer takes the corner of the shared matrices that fits it, as VeRA's own forward pass does."""
    shared_a, shared_b = tensors["base_model.vera_A"], tensors["base_model.vera_B"]
    layers = {}
    for key, d in tensors.items():
        if key.endswith(".vera_lambda_d"):
            module = key.removesuffix(".vera_lambda_d")
            name, b = _plain(module), tensors[f"{module}.vera_lambda_b"]
            if name not in widths:
                raise CorruptArtifact(f"the base has no layer {name!r}; the adapter was trained on another base")
            layers[name] = (d[:, None] * shared_a[:, : widths[name]], b[:, None] * shared_b[: len(b)])
    return layers


def _adalora(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    scale = config["lora_alpha"] / (config["init_r"] + 1e-5)  # peft divides by that much
    layers = {}
    for key, values in tensors.items():
        if key.endswith(".lora_E") and values.shape[0]:
            module = key.removesuffix(".lora_E")
            layers[_plain(module)] = (
                tensors[f"{module}.lora_A"],
                tensors[f"{module}.lora_B"] * values.view(1, -1) * scale,
            )
    return layers


def _widths_of(base: Path) -> dict[str, int]:
    """Inputs of every matrix of the base, by the name of its layer; read from the files' headers."""
    from safetensors import safe_open

    widths = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118  # not a dictionary
                shape = tensors.get_slice(key).get_shape()
                if key.endswith(".weight") and len(shape) == 2:
                    widths[key.removesuffix(".weight")] = int(shape[1])
    return widths


def _plain(module: str) -> str:
    return module.removeprefix("base_model.model.")
