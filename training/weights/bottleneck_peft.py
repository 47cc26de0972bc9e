"""Register bottleneck adapters as a peft tuner: saving, loading and switching then work as for the others.

Importing this file registers the kind `BOTTLENECK` with peft; it must be imported before such an adapter is loaded.
Peft lets others register a kind only if its own enum knows the name, and has no public way to add one: the enum's
insides are extended here, which is why peft is pinned and tests/training/weights/test_bottleneck_peft.py exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn
from torch.nn.functional import gelu

KIND = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]  # peft is untyped
    """Peft's view of the options."""

    size: int = field(default=64, metadata={"help": "Width of the bottleneck."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to put one behind."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave alone."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = getattr(PeftType, KIND)


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A linear layer followed by h + up(gelu(down(h))) for each active adapter in turn."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_size",)
    bottleneck_down: nn.ModuleDict
    bottleneck_up: nn.ModuleDict
    # peft's mixin is untyped, so what is used of it is named here.
    active_adapters: list[str]
    set_adapter: Any
    _move_adapter_to_device_of_base_layer: Any

    def __init__(self, base_layer: Any, adapter_name: str, size: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.width = int(base_layer.out_features)
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_size: dict[str, int] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, size)

    def update_layer(self, adapter_name: str, size: int) -> None:
        """Add one adapter: down normal with deviation 0.02, up zero."""
        down, up = nn.Linear(self.width, size), nn.Linear(size, self.width)
        nn.init.normal_(down.weight, std=0.02)
        for tensor in (down.bias, up.weight, up.bias):
            nn.init.zeros_(tensor)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.bottleneck_size[adapter_name] = size
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """x [..., inputs] -> [..., outputs]."""
        base: Any = self.base_layer
        h: torch.Tensor = base(x, *args, **kwargs)
        if self.disable_adapters:
            return h
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                h = h + self.bottleneck_up[name](gelu(self.bottleneck_down[name](h)))
        return h

    # merge and unmerge stay the base class's, which refuse: what comes out is no linear map of what goes in.


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """What peft asks of a kind of adapter."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config.size)
            if adapter_name not in self.active_adapters:
                target.requires_grad_(False)
            return
        if not hasattr(target, "out_features"):
            raise ValueError(f"{current_key} is a {type(target).__name__}; a bottleneck goes behind a linear layer")
        layer = BottleneckLayer(target, adapter_name, peft_config.size)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def register() -> None:
    """Tell peft of the kind. Asking twice is harmless."""
    if KIND in PeftType.__members__:
        return
    member = str.__new__(PeftType, KIND)
    member._name_ = member._value_ = KIND
    PeftType._member_map_[KIND] = member
    PeftType._value2member_map_[KIND] = member
    PeftType._member_names_.append(KIND)
    type.__setattr__(PeftType, KIND, member)
    register_peft_method(name=KIND.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel)


register()
