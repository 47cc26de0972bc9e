"""VeRA (Kopiczko et al. 2024, arXiv:2310.11454): random matrices shared by all layers and frozen; two vectors move.

W' = W + diag(b) B diag(d) A. For each linear layer r + outputs numbers are trained, a tenth of LoRA's or less. The
shared matrices are drawn from `projection_seed` and saved too, so that loading never depends on a generator. It is
exactly the LoRA of VeRA's own rank with matrices diag(b) B and diag(d) A.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from infra.errors import CorruptArtifact
from infra.settings import Config
from training.tuners.tuner import LoraMatrices, ModelShape, Tuner

if TYPE_CHECKING:
    import torch


class VeraOptions(Config):
    """Options of VeRA."""

    rank: int = Field(default=256, ge=1, le=4096)
    """Rank of the shared matrices (the paper's is 256 to 1024)."""
    projection_seed: int = 0
    """Seed they are drawn from."""
    save_as_lora: bool = False
    """Save the plain LoRA that equals it, for engines that know nothing else (vLLM). It is larger, is served beside
    others on the one loaded base, and a stage that goes on from it goes on as plain LoRA."""


def attach(model: Any, options: VeraOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from peft import VeraConfig

    from training.tuners.attach import attach_convertible

    config = VeraConfig(
        r=options.rank,
        projection_prng_key=options.projection_seed,
        save_projection=True,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return attach_convertible(model, config, options.save_as_lora)


def save(model: Any, folder: Path) -> None:
    """Peft's files, or those of the plain LoRA that equals it."""
    from training.tuners.attach import save_convertible

    save_convertible(model, folder)


def parameters(shape: ModelShape, options: VeraOptions) -> int:
    """r + outputs for each linear layer."""
    return sum(options.rank + outputs for _, _, outputs in shape.linears)


def saved(shape: ModelShape, options: VeraOptions) -> int:
    """The trained ones and the two shared matrices, as wide as the widest layer; or a LoRA's of that rank."""
    if options.save_as_lora:
        return sum(options.rank * (inputs + outputs) for _, inputs, outputs in shape.linears)
    widest = max(inputs for _, inputs, _ in shape.linears) + max(outputs for _, _, outputs in shape.linears)
    return parameters(shape, options) + options.rank * widest


def to_lora(
    tensors: Mapping[str, torch.Tensor], config: Mapping[str, JsonValue], widths: Mapping[str, int]
) -> LoraMatrices:
    """Convert: W + diag(b) B diag(d) A is the LoRA with B' = diag(b) B and A' = diag(d) A, at VeRA's own rank.

    Each layer takes the corner of the shared matrices that fits it, as VeRA's own forward pass does.

    Raises:
        CorruptArtifact: the base lacks one of the layers.
    """
    from training.tuners.lora_conversion import layer_name

    shared_a, shared_b = tensors["base_model.vera_A"], tensors["base_model.vera_B"]
    layers = {}
    for key, d in tensors.items():
        if key.endswith(".vera_lambda_d"):
            module = key.removesuffix(".vera_lambda_d")
            b, width = tensors[f"{module}.vera_lambda_b"], widths.get(layer_name(module))
            if width is None:
                raise CorruptArtifact(
                    f"the base has no layer {layer_name(module)!r}; the adapter was trained on another base"
                )
            layers[module] = (d[:, None] * shared_a[:, :width], b[:, None] * shared_b[: len(b)])
    return layers


TUNER = Tuner(
    name="vera",
    summary="shared frozen random matrices, two trained vectors a layer (Kopiczko et al. 2024)",
    options=VeraOptions,
    attach=attach,
    parameters=parameters,
    peft_type="VERA",
    served="merged",
    to_lora=to_lora,
    save=save,
    lr_multiplier_vs_full=100.0,
    learning_rates=(2e-3, 1e-2),
    cost=1.5,
    saved=saved,
)
