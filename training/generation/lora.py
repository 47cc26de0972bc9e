"""Serve many plain LoRA adapters on one loaded base, each token of a flat pass going through its own.

An adapter's matrices are kept beside the layer they change; the base's weights are shared by all and never touched.
Only what equals ``W x + scaling * B A x`` on linear layers is served this way; `why_not_rows` says why something else
is not (it then gets a copy of the base of its own, see training/generation/generator.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import linear

from infra.errors import CorruptArtifact

KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
# Initialisations that leave the base as it is. Others (PiSSA, OLoRA, CorDA, LoftQ) move part of it into the adapter.
KEEPS_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "trainable_token_indices",
    "target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config", "velora_config",
    "monteclora_config", "kasa_config", "megatron_config",
)  # fmt: skip


@dataclass
class Routes:
    """Which adapter each token of the running pass goes through: (begin, end, adapter), shared by all layers."""

    segments: list[tuple[int, int, str]]


class RowsLinear(nn.Module):
    """A linear layer of the base with the matrices of every attached adapter that changes it."""

    def __init__(self, base: nn.Linear, routes: Routes) -> None:
        super().__init__()
        self.base = base
        self.routes = routes
        self.down: dict[str, Tensor] = {}
        self.up: dict[str, Tensor] = {}

    @property
    def weight(self) -> Tensor:
        """The base's weight; some models look at it for its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """x [1, tokens, in] -> [1, tokens, out]."""
        y = linear(x, self.base.weight, self.base.bias)
        for begin, end, name in self.routes.segments:
            down = self.down.get(name)
            if down is None:
                continue
            if end - begin == x.shape[1]:
                y.add_(linear(linear(x, down), self.up[name]))
            else:
                y[:, begin:end].add_(linear(linear(x[:, begin:end], down), self.up[name]))
        return y


def why_not_rows(config: Mapping[str, JsonValue]) -> str | None:
    """Tell why this adapter (its adapter_config.json) cannot share the base with others; None when it can."""
    if config.get("peft_type") != "LORA":
        return f"it is of type {config.get('peft_type')}"
    for name in VARIANTS:
        if config.get(name):
            return f"it sets {name}"
    if config.get("bias", "none") != "none":
        return "it trains biases"
    if config.get("init_lora_weights", True) not in KEEPS_BASE:
        return f"its initialisation {config['init_lora_weights']!r} changes the base"
    return None


def read_rows(
    path: Path, config: Mapping[str, Any], model: nn.Module, dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Read a plain LoRA adapter: module name -> (down [r, in], up [out, r] with the scaling in it).

    Raises:
        CorruptArtifact: the file cannot be read, or it does not fit the base wholly and exactly.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "adapter_model.safetensors"
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CorruptArtifact(
            f"{file} cannot be read as safetensors ({error}); copy or train the adapter again"
        ) from error
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | RowsLinear)}
    linears = {name: module for name, module in linears.items() if not name.endswith(".base")}
    matrices: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, weight in weights.items():
        match = KEY.match(key)
        if match is None or match["module"] not in linears:
            strange.append(key)
        else:
            matrices.setdefault(match["module"], {})[match["side"]] = weight
    if strange:
        raise CorruptArtifact(
            f"{file} holds {len(strange)} tensors that the base has no layer for, such as {strange[0]!r}; "
            "was it trained on another base, or saved with other key prefixes?"
        )
    typed = LoraConfig.from_pretrained(str(path))
    if typed.target_modules != "all-linear":
        wanted = {name for name in linears if check_target_module_exists(typed, name)}
        if wanted != set(matrices):
            missing = sorted(wanted ^ set(matrices))
            raise CorruptArtifact(
                f"{file} does not fit its own config: {len(missing)} layers differ, such as {missing[0]!r}"
            )
    result = {}
    for module_name, sides in matrices.items():
        base = linears[module_name]
        out_size, in_size = base.weight.shape
        if set(sides) != {"A", "B"}:
            raise CorruptArtifact(f"{file} holds only one of the two matrices of {module_name!r}")
        down, up = sides["A"], sides["B"]
        if down.shape[1] != in_size or up.shape[0] != out_size or down.shape[0] != up.shape[1]:
            raise CorruptArtifact(
                f"{file}: {module_name!r} has shapes {tuple(down.shape)} and {tuple(up.shape)}, "
                f"expected [r, {in_size}] and [{out_size}, r]; it was trained on another base"
            )
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            raise CorruptArtifact(f"{file}: {module_name!r} holds values that are not finite")
        rank = down.shape[0]
        alpha = _by_pattern(config.get("alpha_pattern") or {}, module_name, float(config["lora_alpha"]))
        scaling = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
        device = base.weight.device
        result[module_name] = (
            down.to(device, dtype).contiguous(),
            (up.float() * scaling).to(device, dtype).contiguous(),
        )
    return result


def place_rows(model: nn.Module, name: str, matrices: dict[str, tuple[Tensor, Tensor]], routes: Routes) -> None:
    """Put an adapter's matrices beside the layers that they change."""
    for module_name, (down, up) in matrices.items():
        layer = model.get_submodule(module_name)
        if isinstance(layer, nn.Linear):
            parent, _, last = module_name.rpartition(".")
            wrapped = RowsLinear(layer, routes)
            setattr(model.get_submodule(parent), last, wrapped)
            layer = wrapped
        assert isinstance(layer, RowsLinear)
        layer.down[name], layer.up[name] = down, up


def remove_rows(model: nn.Module, name: str) -> None:
    """Take an adapter's matrices away again."""
    for layer in model.modules():
        if isinstance(layer, RowsLinear):
            layer.down.pop(name, None)
            layer.up.pop(name, None)


def _by_pattern(pattern: dict[str, float], module_name: str, default: float) -> float:
    # peft's rule: a pattern names the end of the module's path, or is a regular expression for it.
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module_name):
            return float(value)
    return default
