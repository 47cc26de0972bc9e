"""Losses that compare log-probabilities see no dropout: before any step every ratio is exactly 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.stages.test_run import spec
from tests.training.world import job_for
from training.objectives import OBJECTIVES, objective_named
from training.stages.loading import load_for_stage
from training.stages.run import run_stage
from training.tuners import tuner_named
from training.weights.dropout import without_dropout

COMPARING = ("dpo", "kto", "ipo", "rloo", "grpo", "ppo", "cpo", "simpo", "orpo", "reward")
IDS = torch.arange(5, 45)[None]


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with dropout in its attention."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.3}))
    return folder


def logps(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = torch.log_softmax(
            model(input_ids=IDS, position_ids=torch.arange(40)[None], sequence_bounds=(0, 40), use_cache=False).logits,
            -1,
        )
    return found


def moved(model: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("tuner", ["lora", "dora", "full"])
@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_ratios_are_one_before_any_step(objective: str, tuner: str, base: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {} if tuner == "full" else {"dropout": 0.5}
    job = job_for(spec(objective, tuner, tuner_options=options), tmp_path, base)
    model = moved(load_for_stage(job, tuner_named(tuner))[0])
    before = logps(model.eval())
    after = logps(model.train())
    assert torch.equal(before, after) == (objective == "dpo")


def test_an_adapter_that_was_trained_with_dropout_goes_on_without(base: Path, tmp_path: Path) -> None:
    first = run_stage(job_for(spec("sft", tuner_options={"dropout": 0.5}), tmp_path, base))
    job = job_for(spec("dpo", starts_from="previous"), tmp_path, base, previous=first)
    model, _ = load_for_stage(job, tuner_named("lora"))
    assert torch.equal(logps(model.eval()), logps(model.train()))


def test_which_objectives_and_that_the_job_says_so(tiny_base: Path, tmp_path: Path) -> None:
    assert {name for name in OBJECTIVES if not objective_named(name).dropout} == set(COMPARING)
    job = job_for(spec("dpo", "qlora"), tmp_path, tiny_base)
    assert job.spec.tuner_options["dropout"] == 0
    assert job.chosen["dropout"].startswith("0: dpo compares log-probabilities")
    job = job_for(spec("sft", "qlora"), tmp_path, tiny_base)
    assert job.spec.tuner_options["dropout"] == 0.05 and "dropout" not in job.chosen


def test_every_rate_of_noise_in_a_model_is_taken_out() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_dropout, self.layerdrop, self.jitter_noise, self.scale = 0.1, 0.2, 0.3, 0.4
            self.inner = nn.ModuleDict({"default": nn.Dropout(0.5)})
            self.drop = nn.Dropout(0.5)

    model = Odd().train()
    without_dropout(model)
    assert (model.attention_dropout, model.layerdrop, model.jitter_noise, model.scale) == (0, 0, 0, 0.4)
    assert model.drop.p == 0 and isinstance(model.inner["default"], nn.Identity) and model.training
