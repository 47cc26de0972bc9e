"""Define what a tuner is: which weights move, how they are saved and served, and what else has to be known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue

from infra.settings import Config

if TYPE_CHECKING:
    import torch


class ModelShape(Config):
    """What the count of trained parameters depends on: the linear layers that are adapted, and widths."""

    linears: tuple[tuple[str, int, int], ...]
    """(last part of its name, inputs, outputs) of every linear layer inside the blocks, sorted; no output layer."""
    total: int
    """All parameters of the base model."""
    layers: int
    """Transformer blocks."""
    hidden: int
    """Width of the model."""
    kv_width: int
    """Key (and value) heads x head size."""


@dataclass(frozen=True)
class TrainingHooks:
    """What a method does beside following gradients, for methods that change their own shape while they train."""

    begin: Callable[[Any, int], None]
    """(model, optimizer steps in all): before the first step."""
    penalty: Callable[[Any], torch.Tensor]
    """Added to each step's loss."""
    after_step: Callable[[Any, int], None]
    """(model, number of the step), after the optimizer's step, while the gradients are there."""
    state: Callable[[Any], dict[str, torch.Tensor]]
    """What of it a checkpoint has to keep."""
    restore: Callable[[Any, dict[str, torch.Tensor]], None]
    """Load that again."""


Served = Literal["shared", "merged", "copy", "model"]
VirtualTokens = Literal["keys_values", "embeddings"]
MakeOptimizer = Callable[["torch.nn.Module", float, float], "torch.optim.Optimizer"]
"""(model, learning rate, weight decay) -> optimizer."""
LoraMatrices = Mapping[str, "tuple[torch.Tensor, torch.Tensor]"]
"""Name of a linear layer -> A [rank, inputs] and B [outputs, rank] with the scale in them."""
ToLora = Callable[[Mapping[str, "torch.Tensor"], Mapping[str, JsonValue], Mapping[str, int]], LoraMatrices]
"""(tensors of an adapter's file, its adapter_config.json, inputs of each linear layer of the base) -> plain LoRA."""


@dataclass(frozen=True)
class Tuner:
    """One way to choose which weights move."""

    name: str
    summary: str
    """One sentence with its source."""
    options: type[Config]
    """Its options, documented and with working defaults."""
    attach: Callable[[Any, Any, str], Any]
    """(base model, options, base name) -> model with the trained weights marked; peft's, unless it saves `model`."""
    parameters: Callable[[ModelShape, Any], int]
    """Number of trained parameters, by formula."""
    saves: Literal["adapter", "model"] = "adapter"
    """What is written: a peft adapter, or the whole model."""
    served: Served = "shared"
    """How the embedded engine serves it. shared: beside others on the one loaded base; merged: added into a copy of
    the base in float32; copy: on top of a copy of the base; model: it is a whole model."""
    peft_type: str | None = None
    """The kind of adapter it saves, in peft's words; None where it saves the whole model."""
    saves_plain_lora: bool = False
    """Whether what it saves is plain LoRA."""
    to_lora: ToLora | None = None
    """Matrices of the plain LoRA that equals its adapter, where there is one (training/tuners/lora_conversion.py)."""
    virtual_tokens: VirtualTokens | None = None
    """What stands before the first token, for tuners that put learned virtual tokens there: keys and values of every
    layer, or embeddings."""
    merges: bool = True
    """Whether its weights can be added into the base's."""
    packs: bool = True
    """Whether sequences may lie end to end in one row (no, where a learned prefix stands before every row)."""
    quantised: bool = False
    """Whether the frozen base is loaded in 4 bits."""
    identity_at_init: bool = True
    """Whether a fresh adapter leaves the model's outputs as they are."""
    recomputes: bool = True
    """Whether activations can be recomputed for the backward pass (gradient checkpointing)."""
    kept_outputs: int = 0
    """Outputs of each linear layer that the backward pass keeps beside the base model's own."""
    lr_multiplier_vs_full: float = 10.0
    """Learning rate as a multiple of full fine-tuning's."""
    learning_rates: tuple[float, float] = (2e-4, 1e-3)
    """Bounds within which the rule for the learning rate is held (for sft)."""
    rank_bounds: tuple[int, int] | None = None
    """Least and greatest rank that the rule for the rank may pick; None where there is none, or a fixed one."""
    cost: float = 1.0
    """Time per token, as a multiple of lora's."""
    saved: Callable[[ModelShape, Any], int] | None = None
    """Numbers written to disk, by formula. Default: the trained ones."""
    incompatible: Mapping[str, str] = field(default_factory=dict)
    """Objective -> why the two do not go together."""
    resume: Callable[[Any], Any] | None = None
    """Touch on a model whose adapter was loaded to be trained on (what else is frozen)."""
    optimizer: MakeOptimizer | None = None
    """(model, learning rate, weight decay) -> optimizer, where the method is one of the optimizer."""
    hooks: TrainingHooks | None = None
    """What it does while a fresh adapter trains."""
    save: Callable[[Any, Path], None] | None = None
    """Write the finished adapter, where peft's own way does not fit the untouched base."""

    @property
    def as_lora(self) -> Literal["is", "converts", "no"]:
        """Whether engines that know only LoRA (vLLM) can serve it: it is plain LoRA as saved, converts to it exactly,
        or not."""
        return "is" if self.saves_plain_lora else "converts" if self.to_lora is not None else "no"

    def refuses(self, objective: str) -> str | None:
        """Tell why this tuner cannot carry `objective`, or None."""
        return self.incompatible.get(objective)

    def saved_numbers(self, shape: ModelShape, options: Any) -> int:
        """Count the numbers written to disk."""
        return (self.saved or self.parameters)(shape, options)
