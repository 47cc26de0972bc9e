"""IA3 (Liu et al. 2022, arXiv:2205.05638): keys, values and the feed-forward's inner activations are rescaled.

One learned factor for each key and value output and each input of the feed-forward's last layer: the fewest trained
numbers of all. The factors start at one, so the model is unchanged, and multiply into the weights exactly.
"""

from __future__ import annotations

from typing import Any

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner

PLACES = (("k_proj", "v_proj", "down_proj"), ("k_proj", "v_proj", "fc2"))


class Ia3Options(Config):
    """IA3 has no options of its own."""


def attach(model: Any, options: Ia3Options, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from peft import IA3Config

    from training.tuners.attach import attach_adapter, layers_called

    names = layers_called(model, PLACES, "ia3")
    config = IA3Config(target_modules=names, feedforward_modules=names[-1:], task_type="CAUSAL_LM")
    return attach_adapter(model, config)


def parameters(shape: ModelShape, options: Ia3Options) -> int:
    """Outputs of keys and values, inputs of the feed-forward's last layer, in each block."""
    ends = {name for group in PLACES for name in group[-1:]}
    return sum(
        inputs if name in ends else outputs
        for name, inputs, outputs in shape.linears
        if name in ends or name in ("k_proj", "v_proj")
    )


TUNER = Tuner(
    name="ia3",
    summary="three learned rescaling vectors a block: the fewest weights of all (Liu et al. 2022)",
    options=Ia3Options,
    attach=attach,
    parameters=parameters,
    peft_type="IA3",
    served="merged",
    lr_multiplier_vs_full=50.0,
    learning_rates=(3e-3, 1e-2),
    cost=0.9,
)
