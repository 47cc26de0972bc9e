"""Fuse LoRA's layer into one step of autograd: W x + s B A x without the sums, products and copies in between.

peft computes base output, low-rank output, their scaled sum, and keeps each for the backward pass. Here the low-rank
term is added in place, its gradient is added in place, and only the layer's input and the rank-sized product are kept
(with a frozen A, as in LoRA-FA, not even the input). Same numbers but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LoraProduct(torch.autograd.Function):
    """x W' + s (x A') B' for a frozen W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """x [..., inputs], weight [outputs, inputs], a [rank, inputs], b [outputs, rank] -> [..., outputs]."""
        rows = x.reshape(-1, x.shape[-1])
        low = (rows @ a.T).mul_(scale)
        out = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        out.addmm_(low, b.T)
        ctx.save_for_backward(rows if a.requires_grad else None, weight, a, b, low)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, a and b."""
        rows, weight, a, b, low = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, weight.shape[0])
        of_low = (gradient @ b).mul_(ctx.scale)
        of_b = (low.T @ gradient).T if ctx.needs_input_grad[4] else None
        of_a = of_low.T @ rows if ctx.needs_input_grad[3] else None
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient @ weight).addmm_(of_low, a).view(ctx.shape)
        return of_x, None, None, of_a, of_b, None


def fuse(model: nn.Module) -> int:
    """Let every plain LoRA layer of `model` (peft's) compute by `LoraProduct`; the number of layers that do.

    A layer keeps peft's own way where it is more than that: dropout, DoRA, a quantised or trained base, two adapters.
    """
    from peft.tuners.lora import Linear

    fused = 0
    for layer in model.modules():
        if type(layer) is Linear and _is_plain(layer):
            layer.forward = _Fused(layer, layer.forward)
            fused += 1
    return fused


class _Fused:
    """The fused forward of one layer; peft's own while the adapter is off or merged."""

    def __init__(self, layer: Any, own: Any) -> None:
        self.layer, self.own = layer, own
        [self.name] = layer.active_adapters

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        layer = self.layer
        if layer.disable_adapters or layer.merged or args or kwargs or layer.active_adapters != [self.name]:
            return self.own(x, *args, **kwargs)
        base = layer.base_layer
        a, b = layer.lora_A[self.name].weight, layer.lora_B[self.name].weight
        return LoraProduct.apply(x.to(a.dtype), base.weight, base.bias, a, b, layer.scaling[self.name])  # type: ignore[no-untyped-call]


def _is_plain(layer: Any) -> bool:
    names = list(layer.active_adapters)
    base = layer.base_layer
    if len(names) != 1 or type(base) is not nn.Linear or base.weight.requires_grad:
        return False
    name = names[0]
    if name not in layer.lora_A or layer.fan_in_fan_out or not isinstance(layer.lora_dropout[name], nn.Identity):
        return False
    if name in getattr(layer, "lora_variant", {}) or layer.lora_bias.get(name, False):
        return False
    matrices: list[Any] = [layer.lora_A[name], layer.lora_B[name]]
    return all(
        type(m) is nn.Linear and getattr(m, "bias", 0) is None and m.weight.dtype == base.weight.dtype for m in matrices
    )
