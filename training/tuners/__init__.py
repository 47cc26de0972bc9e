"""Tuners: which weights move. One file and one line in `TUNERS` for each.

A tuner's file is light to import (no torch): what needs torch or peft is imported inside its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.errors import NotFound
from infra.settings import Config

if TYPE_CHECKING:
    import torch

TUNERS: Mapping[str, str] = {
    "full": "training.tuners.full",
    "lora": "training.tuners.lora",
    "qlora": "training.tuners.qlora",
    "dora": "training.tuners.dora",
    "lora_fa": "training.tuners.lora_fa",
    "vera": "training.tuners.vera",
    "adalora": "training.tuners.adalora",
    "ia3": "training.tuners.ia3",
    "bottleneck": "training.tuners.bottleneck",
    "prefix": "training.tuners.prefix",
    "prompt": "training.tuners.prompt",
}
"""Name -> module that defines `TUNER`."""


class Shape(Config):
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
class During:
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
    """Put that back."""


Served = Literal["shared", "merged", "copy", "model"]


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
    parameters: Callable[[Shape, Any], int]
    """Number of trained parameters, by formula."""
    saves: Literal["adapter", "model"] = "adapter"
    """What is written: a peft adapter, or the whole model."""
    served: Served = "shared"
    """How the embedded engine serves it. shared: beside others on the one loaded base; merged: added into a copy of
    the base in float32; copy: on top of a copy of the base; model: it is a whole model."""
    as_lora: Literal["is", "converts", "no"] = "no"
    """Whether engines that know only LoRA (vLLM) can serve it: it is plain LoRA as saved, converts to it exactly
    (training/weights/lora_conversion.py), or not."""
    merges: bool = True
    """Whether its weights can be added into the base's."""
    packs: bool = True
    """Whether sequences may lie end to end in one row (no, where a learned prefix stands before every row)."""
    quantised: bool = False
    """Whether the frozen base is loaded in 4 bits."""
    begins_as_base: bool = True
    """Whether a fresh adapter leaves the model's outputs as they are."""
    rate_against_full: float = 10.0
    """Learning rate as a multiple of full fine-tuning's."""
    learning_rates: tuple[float, float] = (2e-4, 1e-3)
    """Bounds within which the rule for the learning rate is held (for sft)."""
    rank_bounds: tuple[int, int] | None = None
    """Least and greatest rank that the rule for the rank may pick; None where there is none, or a fixed one."""
    cost: float = 1.0
    """Time per token, as a multiple of lora's."""
    saved: Callable[[Shape, Any], int] | None = None
    """Numbers written to disk, by formula. Default: the trained ones."""
    cannot: Mapping[str, str] = field(default_factory=dict)
    """Objective -> why the two do not go together."""
    resume: Callable[[Any], Any] | None = None
    """Touch on a model whose adapter was loaded to be trained on (what else is frozen)."""
    optimizer: Callable[[torch.nn.Module, float, float], torch.optim.Optimizer] | None = None
    """(model, learning rate, weight decay) -> optimizer, where the method is one of the optimizer."""
    during: During | None = None
    """What it does while a fresh adapter trains."""
    save: Callable[[Any, Path], None] | None = None
    """Write the finished adapter, where peft's own way does not fit the untouched base."""

    def refuses(self, objective: str) -> str | None:
        """Why this tuner cannot carry `objective`, or None."""
        return self.cannot.get(objective)

    def saved_numbers(self, shape: Shape, options: Any) -> int:
        """Numbers written to disk."""
        return (self.saved or self.parameters)(shape, options)


def tuner_named(name: str) -> Tuner:
    """The tuner called `name`.

    Raises:
        NotFound: there is none; the message lists those there are.
    """
    if name not in TUNERS:
        raise NotFound(f"unknown tuner {name!r}; expected one of {', '.join(TUNERS)}")
    tuner = import_module(TUNERS[name]).TUNER
    assert isinstance(tuner, Tuner) and tuner.name == name
    return tuner
