"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): LoRA on a frozen base kept in 4-bit NormalFloat, doubly quantised.

About 0.55 bytes a weight of the linear layers instead of 2 or 4; each use dequantises them. It trains a little slower
than lora and needs far less memory. What it saves is plain LoRA and is served on the base's own weights: the small
difference between those and their 4-bit copy is in the probe and in the gate's measurements, which both use what is
served. Runs on CPUs too (bitsandbytes).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class QloraOptions(Config):
    """Options of QLoRA; the defaults are the paper's (its appendix B)."""

    rank: int = Field(default=64, ge=1, le=1024)
    """Rank; the paper found it to matter little once every linear layer is adapted."""
    alpha: float | None = Field(default=16, gt=0)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before A (the paper: 0.1 up to 13B, 0.05 above). Off in objectives that compare log-probabilities (dpo,
    kto, grpo and their like)."""


def attach(model: Any, options: QloraOptions, base_name: str) -> Any:
    """Wrap the quantised `model` with a fresh adapter called "default"."""
    from training.tuners.attach import attach_lora

    return attach_lora(model, options)


def parameters(shape: ModelShape, options: QloraOptions) -> int:
    """r (inputs + outputs) for each linear layer."""
    return sum(options.rank * (inputs + outputs) for _, inputs, outputs in shape.linears)


TUNER = Tuner(
    name="qlora",
    summary="LoRA on a base frozen in 4 bits: least memory (Dettmers et al. 2023)",
    options=QloraOptions,
    attach=attach,
    parameters=parameters,
    peft_type="LORA",
    saves_plain_lora=True,
    quantised=True,
    cost=1.6,
)
