"""LoRA (Hu et al. 2021, arXiv:2106.09685): every linear layer W gets a trained low-rank term (alpha / r) B A.

On all linear layers, not only attention: that is what matches full fine-tuning on small data (Biderman et al. 2024,
arXiv:2405.09673; Schulman et al. 2025).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners import Shape, Tuner


class LoraOptions(Config):
    """Options of LoRA."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank r of the update."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale: the update is multiplied by alpha / r. Default: 2 r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before A."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""


def attach(model: Any, options: LoraOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha or 2 * options.rank,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def parameters(shape: Shape, options: LoraOptions) -> int:
    """r (inputs + outputs) for each linear layer."""
    return sum(options.rank * (inputs + outputs) for inputs, outputs in shape.linears)


TUNER = Tuner(
    name="lora",
    summary="a low-rank term beside every linear layer (Hu et al. 2021)",
    options=LoraOptions,
    attach=attach,
    parameters=parameters,
)
