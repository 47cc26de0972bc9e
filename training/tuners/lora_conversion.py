"""Convert adapters that equal a LoRA to plain LoRA, for engines that know nothing else, such as vLLM.

A recipe asks for it by the tuner option `save_as_lora`.

How a kind equals one is said in its tuner's own file (`to_lora`). LoRA-FA and QLoRA save plain LoRA; PiSSA and OLoRA
were converted when they were saved (training/tuners/lora.py). The others are no LoRA: DoRA's norm and IA3's factors
change a weight by more than a term of low rank, and bottlenecks, prefixes and prompts change no weight at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import CorruptArtifact, UserError
from training.tuners.adapter_kinds import tuner_of_kind
from training.weights.safetensors_headers import tensor_sizes


def converts(adapter: Path) -> bool:
    """Tell whether the adapter in a folder equals a plain LoRA and is none yet."""
    config = adapter / "adapter_config.json"
    tuner = tuner_of_kind(json.loads(config.read_text()).get("peft_type")) if config.exists() else None
    return tuner is not None and tuner.to_lora is not None


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
    tuner = tuner_of_kind(kind)
    if tuner is None or tuner.to_lora is None:
        reason = "it is one already" if kind == "LORA" else "it equals none"
        raise UserError(f"{adapter} holds an adapter of kind {kind}, which cannot be converted to LoRA: {reason}")
    try:
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise CorruptArtifact(f"the adapter in {adapter} cannot be read ({error}); train it again") from error
    layers = {layer_name(module): pair for module, pair in tuner.to_lora(tensors, config, widths).items()}
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


def _widths_of(base: Path) -> dict[str, int]:
    """Inputs of every matrix of the base, by the name of its layer; read from the files' headers."""
    matrices = ((key, sizes) for key, sizes in tensor_sizes(base) if key.endswith(".weight") and len(sizes) == 2)
    return {key.removesuffix(".weight"): sizes[1] for key, sizes in matrices}


def layer_name(module: str) -> str:
    """Name a layer of the base as the base itself does."""
    return module.removeprefix("base_model.model.")
