"""Optimise by AdamW with float32 master weights, for parameters that are kept in bfloat16.

A bfloat16 weight has 8 bits of mantissa: updates under 1/256 of it would vanish. The master copy keeps them; the model
computes with its rounded copy, so nothing is cast in the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch


class MasterAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on float32 copies of the parameters.

    Equal to torch.optim.AdamW where parameters are float32.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.tensor(0.0),
                        "master": p.detach().clone().float(),
                        "exp_avg": torch.zeros_like(p, dtype=torch.float32),
                        "exp_avg_sq": torch.zeros_like(p, dtype=torch.float32),
                    }
            states = [self.state[p] for p in params]
            masters = [s["master"] for s in states]
            first, second = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
            gradients = [p.grad.float() for p in params if p.grad is not None]
            (beta1, beta2), rate = group["betas"], group["lr"]
            for s in states:
                s["step"] += 1
            torch._foreach_mul_(masters, 1 - rate * group["weight_decay"])
            torch._foreach_lerp_(first, gradients, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
            counts = [float(s["step"]) for s in states]
            scale = torch._foreach_sqrt(second)
            torch._foreach_div_(scale, [math.sqrt(1 - beta2**count) for count in counts])
            torch._foreach_add_(scale, group["eps"])
            torch._foreach_addcdiv_(masters, first, scale, [-rate / (1 - beta1**count) for count in counts])
            torch._foreach_copy_(params, masters)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load like torch's, but keep float32 what it would round to the parameters' dtype."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        indices = [i for group in state_dict["param_groups"] for i in group["params"]]
        for index, p in zip(indices, params, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                self.state[p][name] = value.detach().clone() if name == "step" else value.detach().clone().to(p.device)
