"""Each tuner: what moves, how much of it, and that what it saves says the same when loaded and served."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_stage import check, spec
from tests.training.world import job_for
from training.loading import load_plain, shape_of
from training.stage import run_stage
from training.tuners import TUNERS, tuner_named

OTHERS = [name for name in TUNERS if name not in ("full", "lora")]  # those two are in test_stage.py


@pytest.mark.parametrize("name", TUNERS)
def test_formula_for_trained_parameters_is_the_models(name: str, tiny_base: Path) -> None:
    tuner = tuner_named(name)
    model = load_plain(tiny_base, "float32")
    predicted = tuner.parameters(shape_of(model), tuner.options())
    tuned = tuner.attach(model, tuner.options(), "tiny")
    assert predicted == sum(p.numel() for p in tuned.parameters() if p.requires_grad) > 0


@pytest.mark.parametrize("name", [name for name in TUNERS if tuner_named(name).saves == "adapter"])
def test_a_fresh_adapter_changes_nothing(name: str, tiny_base: Path) -> None:
    tuner = tuner_named(name)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = load_plain(tiny_base, "float32")(input_ids=ids).logits
        after = tuner.attach(load_plain(tiny_base, "float32"), tuner.options(), "tiny").eval()(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_sft_with_each_tuner(name: str, tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(spec("sft", name), tmp_path, tiny_base)
    record = run_stage(job)
    check(job, record)
    assert record.result["trained_parameters"] == tuner_named(name).parameters(
        shape_of(load_plain(tiny_base, "float32")), tuner_named(name).options.model_validate(job.spec.tuner_options)
    )


def test_lora_fa_keeps_a_as_drawn_also_in_a_second_stage(tmp_path: Path, tiny_base: Path) -> None:
    first = run_stage(job_for(spec("sft", "lora_fa"), tmp_path, tiny_base))
    second_job = job_for(spec("dpo", "lora_fa", starts_from="previous"), tmp_path, tiny_base, previous=first)
    second = run_stage(second_job)
    assert second.result["trained_parameters"] == first.result["trained_parameters"]
    one, two = (
        load_file(tmp_path / "stages" / record.key / "adapter" / "adapter_model.safetensors")
        for record in (first, second)
    )
    assert all(torch.equal(one[n], two[n]) for n in one if "lora_A" in n)
    assert any(not torch.equal(one[n], two[n]) for n in one if "lora_B" in n)
