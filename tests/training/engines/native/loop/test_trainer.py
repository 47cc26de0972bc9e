"""The training loop's own guards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from infra.errors import Diverged
from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training import objectives
from training.engines.native.loop.trainer import not_finite
from training.objectives import sft
from training.stages.run import run_stage


def test_weights_with_broken_gradients_are_named() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False)).bfloat16()
    assert not_finite(model) == []
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, [1.0, float("nan"), float("inf")][number])
    first = next(model.parameters()).grad
    assert first is not None
    first.view(-1)[0] = -3.0
    assert not_finite(model) == ["0.bias", "1.weight"]


def test_a_broken_gradient_of_a_finite_loss_stops_before_the_step(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(scored: Any, options: Any) -> Any:
        # The derivative of a square root at 0 is infinite, and 0 times that is NaN; the loss itself is finite.
        total, seen = sft.loss(scored, options)
        return total + 0 * torch.sqrt(scored.token_logps * 0).sum(), seen

    broken = dataclasses.replace(sft.OBJECTIVE, loss=loss)
    monkeypatch.setitem(objectives.OBJECTIVES._loaded, "sft", broken)
    assert objectives.objective_named("sft").loss is loss
    with pytest.raises(Diverged, match=r"step 1: the loss is .*, but the gradient of .*lora_.* is not finite"):
        run_stage(job_for(spec("sft"), tmp_path, tiny_base))
