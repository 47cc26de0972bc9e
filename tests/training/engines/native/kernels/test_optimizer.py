"""AdamW with float32 master weights."""

from __future__ import annotations

import io

import torch

from training.engines.native.kernels.optimizer import MasterAdamW


def steps(
    optimizer_class: type[torch.optim.Optimizer], parameter: torch.nn.Parameter, count: int
) -> torch.optim.Optimizer:
    optimizer = optimizer_class([parameter], lr=1e-3, weight_decay=0.1)  # type: ignore[call-arg]
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()
    return optimizer


def test_equals_adamw_in_float32() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    steps(MasterAdamW, ours, 20)
    steps(torch.optim.AdamW, theirs, 20)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_small_updates_add_up_in_bfloat16() -> None:
    parameter = torch.nn.Parameter(torch.full((4,), 100.0, dtype=torch.bfloat16))
    optimizer = MasterAdamW([parameter], lr=0.01)
    for _ in range(100):  # each update is far below bfloat16's spacing of 0.5 at 100
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.all(parameter == 99.0)


def test_state_survives_saving_exactly() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = steps(MasterAdamW, parameter, 3)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    other = torch.nn.Parameter(parameter.detach().clone())
    again = MasterAdamW([other], lr=1e-3, weight_decay=0.1)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.state[other]["master"].dtype == torch.float32
    assert torch.equal(again.state[other]["master"], optimizer.state[parameter]["master"])
    for p, o in ((parameter, optimizer), (other, again)):
        p.grad = torch.full_like(p, 0.3)
        o.step()
    assert torch.equal(parameter, other)
