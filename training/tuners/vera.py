"""VeRA (Kopiczko et al. 2024, arXiv:2310.11454): random matrices shared by all layers and frozen; two vectors move.

W' = W + diag(b) B diag(d) A. For each linear layer r + outputs numbers are trained, a tenth of LoRA's or less. The
shared matrices are drawn from `projection_seed` and saved too, so that loading never depends on a generator. It is
exactly the LoRA of VeRA's own rank with matrices diag(b) B and diag(d) A.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners import Shape, Tuner


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


def parameters(shape: Shape, options: VeraOptions) -> int:
    """r + outputs for each linear layer."""
    return sum(options.rank + outputs for _, _, outputs in shape.linears)


def saved(shape: Shape, options: VeraOptions) -> int:
    """The trained ones and the two shared matrices, as wide as the widest layer; or a LoRA's of that rank."""
    if options.save_as_lora:
        return sum(options.rank * (inputs + outputs) for _, inputs, outputs in shape.linears)
    widest = max(inputs for _, inputs, _ in shape.linears) + max(outputs for _, _, outputs in shape.linears)
    return parameters(shape, options) + options.rank * widest


TUNER = Tuner(
    name="vera",
    summary="shared frozen random matrices, two trained vectors a layer (Kopiczko et al. 2024)",
    options=VeraOptions,
    attach=attach,
    parameters=parameters,
    served="merged",
    as_lora="converts",
    save=save,
    rate_against_full=100.0,
    learning_rates=(2e-3, 1e-2),
    cost=1.5,
    saved=saved,
)
