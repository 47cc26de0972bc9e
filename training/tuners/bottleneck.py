"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): a small two-layer network after each sub-layer.

h' = h + U gelu(D h), after attention and after the feed-forward, D to `size` and U back. U starts at zero, so the model
is unchanged. It is not linear in h, so it cannot be merged; the embedded engine serves it on a copy of the base.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner

PLACES = (("o_proj", "down_proj"), ("out_proj", "fc2"), ("dense", "dense_4h_to_h"))
"""Names of a block's last linear layers, after attention and after the feed-forward, by family of models."""


class BottleneckOptions(Config):
    """Options of bottleneck adapters."""

    size: int = Field(default=64, ge=1, le=4096)
    """Width of the bottleneck (the paper: 8 to 256, 64 as the best single choice)."""


def attach(model: Any, options: BottleneckOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from training.tuners.attach import attach_adapter, layers_called
    from training.weights.bottleneck_peft import BottleneckConfig

    names = layers_called(model, PLACES, "bottleneck")
    return attach_adapter(model, BottleneckConfig(size=options.size, target_modules=names, task_type="CAUSAL_LM"))


def parameters(shape: ModelShape, options: BottleneckOptions) -> int:
    """Two matrices and two biases after each of the two sub-layers: 2 size outputs + size + outputs."""
    have = {name for name, _, _ in shape.linears}
    names = next((group for group in PLACES if set(group) <= have), ())
    return sum(
        2 * options.size * outputs + options.size + outputs for name, _, outputs in shape.linears if name in names
    )


TUNER = Tuner(
    name="bottleneck",
    summary="a small network after attention and after the feed-forward (Houlsby et al. 2019)",
    options=BottleneckOptions,
    attach=attach,
    parameters=parameters,
    peft_type="BOTTLENECK",
    served="copy",
    merges=False,
    cost=0.9,
)
