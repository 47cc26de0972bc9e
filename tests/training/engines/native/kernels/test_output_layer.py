"""The output layer's gradient in bfloat16, against float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from training.engines.native.kernels.output_layer import TokenLogps


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 0.999, 0.9999])
def test_a_nearly_certain_token_keeps_its_gradient(share: float) -> None:
    torch.manual_seed(0)
    rows, width, size = 64, 256, 2048
    weight = torch.randn(size, width) * 0.05
    own = torch.randint(0, size, (rows,))
    hidden = torch.randn(rows, width)
    towards = weight[own] / weight[own].norm(dim=1, keepdim=True) ** 2
    low, high = torch.zeros(rows), torch.full((rows,), 400.0)
    for _ in range(40):  # as far towards its token's row as gives that token the share wanted
        middle = (low + high) / 2
        p = torch.softmax((hidden + middle[:, None] * towards) @ weight.T, -1).gather(1, own[:, None])[:, 0]
        low, high = torch.where(p < share, middle, low), torch.where(p < share, high, middle)
    states, table = (hidden + low[:, None] * towards).bfloat16(), weight.bfloat16()

    exact = states.double().requires_grad_()
    (-cross_entropy(exact @ table.double().T, own, reduction="sum")).backward()  # type: ignore[no-untyped-call]
    ours = states.clone().requires_grad_()
    TokenLogps.apply(ours, table, own).sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None and exact.grad is not None
    error = (ours.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert error.median() < 0.1
