"""What was trained, to disk and back, bit for bit and without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.errors import RatchetError


def is_peft(model: Any) -> bool:
    """Whether `model` carries a peft adapter."""
    return hasattr(model, "peft_config")


def save_weights(model: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """What was trained, as safetensors: the adapter, or the whole model."""
    folder.mkdir(parents=True, exist_ok=True)
    # save_embedding_layers=False: peft would otherwise ask the hub whether the vocabulary grew.
    extra = {"save_embedding_layers": False} if is_peft(model) else {}
    model.save_pretrained(folder, state_dict=state_dict, safe_serialization=True, **extra)


def load_weights(model: Any, folder: Path) -> None:
    """Put weights that `save_weights` wrote back into the same model, bit for bit."""
    from safetensors.torch import load_file

    tensors = {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
    if is_peft(model):
        from peft import set_peft_model_state_dict

        result = set_peft_model_state_dict(model, tensors, adapter_name=model.active_adapter)
    else:
        result = model.load_state_dict(tensors, strict=False)
        model.tie_weights()
    if result.unexpected_keys:
        raise RatchetError(f"{folder} holds weights that this model has not: {result.unexpected_keys[:3]}")
