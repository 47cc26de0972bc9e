"""Save and load trained weights, bit for bit and without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.errors import RatchetError
from training.weights.heads import NAME, head_of

TRAINED = "trained.safetensors"


def is_peft(model: Any) -> bool:
    """Tell whether `model` carries a peft adapter."""
    return hasattr(model, "peft_config")


def save_weights(model: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """Save the adapter, or the whole model, in the files that engines load."""
    folder.mkdir(parents=True, exist_ok=True)
    # save_embedding_layers=False: peft would otherwise ask the hub whether the vocabulary grew.
    extra = {"save_embedding_layers": False} if is_peft(model) else {}
    if head_of(model) is not None:  # a file of its own, where it is wanted
        own = model.state_dict() if state_dict is None else state_dict
        state_dict = {name: tensor for name, tensor in own.items() if not name.startswith(NAME)}
    model.save_pretrained(folder, state_dict=state_dict, safe_serialization=True, **extra)


def save_trained(model: Any, folder: Path) -> None:
    """Save every weight that moves, by its name in this very model: what a checkpoint needs, whatever the tuner."""
    from safetensors.torch import save_file

    from training.engines.native.kernels.distributed import barrier, full_tensor, is_rank_zero

    moved = {name: full_tensor(p.detach()).contiguous() for name, p in model.named_parameters() if p.requires_grad}
    if is_rank_zero():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(moved, folder / TRAINED, metadata={"format": "pt"})
    barrier()


def load_trained(model: Any, folder: Path) -> None:
    """Load what `save_trained` wrote, bit for bit, into a model that was put together in the same way.

    A head is left out where the model has none: a policy answers without the value function it was trained with.

    Raises:
        RatchetError: it is of another model.
    """
    import torch
    from safetensors.torch import load_file

    from training.engines.native.kernels.distributed import copy_sharded

    kept = load_file(folder / TRAINED)
    if head_of(model) is None:
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith(f"{NAME}.")}
    moved = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if kept.keys() != moved.keys():
        strange = sorted(kept.keys() ^ moved.keys())
        raise RatchetError(f"{folder} is a checkpoint of another model: {len(strange)} weights differ, {strange[0]}")
    with torch.no_grad():
        for name, parameter in moved.items():
            if kept[name].shape != parameter.shape or kept[name].dtype != parameter.dtype:
                raise RatchetError(
                    f"{folder}: {name} is {kept[name].dtype} {list(kept[name].shape)}, expected {parameter.dtype} "
                    f"{list(parameter.shape)}; remove the folder, the stage begins anew"
                )
            copy_sharded(parameter, kept[name])
