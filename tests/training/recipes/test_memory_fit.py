"""What does not fit the memory is left out with the sum, on the base that is meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from tasks.reporting.prefect_artifacts import plan_page
from tasks.train import plan as planned
from tests.large_base import write_large_base
from training.base_model import DEFAULT_BASE, Base
from training.recipes.base_offline import base_offline
from training.recipes.built_in import RECIPES
from training.recipes.memory import SMOLLM2_135M, shape_of_folder
from training.recipes.memory_fit import Room, peak_of, why_not_fit
from training.recipes.plan import TrainingConfig, plan_night
from training.tuners.tuner import ModelShape

COUNTS = {"completion": 500, "preference": 300}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large_base(tmp_path_factory.mktemp("large") / "seven")


def room(shape: ModelShape, gigabytes: float, **fields: Any) -> Room:
    has = int(gigabytes * 1e9)
    return Room.model_validate({"shape": shape, "dtype": "bfloat16", "alone": has, "each": has, **fields})


def test_a_recipe_that_does_not_fit_is_left_out_with_the_sum_a_named_one_too(large: Path) -> None:
    shape = shape_of_folder(large)
    assert 6.6e9 < shape.total < 6.8e9
    for methods in ("auto", ("sft-full", "sft-lora", "sft-qlora")):
        config = TrainingConfig(methods=methods, threads=2, budget_minutes=1e9)
        plan = plan_night(COUNTS, config, parameters=shape.total, room=room(shape, 24))
        assert {"sft-lora", "sft-qlora"} <= {recipe.name for recipe in plan.recipes}
        [left] = [left for left in plan.left_out if left.because == "memory" and left.recipe == "sft-full"]
        # Weights of 2 bytes; gradients of 2, two moments and a master copy of 4 each.
        assert (
            "sft with full needs about" in left.reason and "13.5 weights + 94.3 gradients and optimizer" in left.reason
        )
        assert "the machine has 24.0 GB, of which nine tenths may be planned with (21.6 GB)" in left.reason
        assert left.reason in plan_page(plan, "")
    everything = plan_night(COUNTS, config, parameters=shape.total, room=room(shape, 200))
    assert "sft-full" in [recipe.name for recipe in everything.recipes]


def test_activations_are_made_anew_before_a_recipe_is_given_up(large: Path) -> None:
    shape, recipe = shape_of_folder(large), RECIPES["sft-lora"]
    wide, tight = (peak_of(recipe, 0, 500, room(shape, size)) for size in (64, 20))
    assert (wide.fits, wide.recompute) == (tight.fits, not tight.recompute) == (True, False)
    assert tight.memory.activations < 0.2 * wide.memory.activations
    assert "although activations are made anew" in str(why_not_fit(recipe, COUNTS, room(shape, 14)))


def test_what_trains_in_four_bits_is_served_whole(large: Path) -> None:
    shape, recipe = shape_of_folder(large), RECIPES["sft-qlora"]
    assert peak_of(recipe, 0, 500, room(shape, 12)).fits
    reason = str(why_not_fit(recipe, COUNTS, room(shape, 12, owner="the GPU (X)")))
    assert "hold the whole base in bfloat16, about 14.1 GB (13.5 weights + 0.6 process), the GPU (X) has 12.0" in reason


def test_processes_split_what_can_be_split(large: Path) -> None:
    shape = shape_of_folder(large)
    several = room(shape, 40, processes=4)
    assert why_not_fit(RECIPES["sft-full"], COUNTS, several) is None
    assert why_not_fit(RECIPES["sft-full"], COUNTS, room(shape, 40)) is not None


def test_the_night_s_plan_goes_by_its_base_and_memory(large: Path) -> None:
    base = Base(name="large", path=large, digest="0" * 64, source="folder")
    config = TrainingConfig(methods=("sft-lora", "sft-full"), dtype="bfloat16", memory_gb=24)
    plan = planned.fn(COUNTS, config, base)
    assert [recipe.name for recipe in plan.recipes] == ["sft-lora"]
    assert [(left.recipe, left.because) for left in plan.left_out] == [("sft-full", "memory")]


def test_weights_that_lie_there_twice_count_once(tmp_path: Path, tiny_base: Path) -> None:
    """As repositories of Mistral have them: shards with an index, and all of it once more for other programs."""
    folder = shutil.copytree(tiny_base, tmp_path / "twice")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(names)
    shutil.copy(tiny_base / "model.safetensors", folder / "consolidated.safetensors")
    assert shape_of_folder(folder) == shape_of_folder(tiny_base)
    (folder / "model.safetensors.index.json").unlink()
    assert shape_of_folder(folder) == shape_of_folder(tiny_base)


def test_a_base_is_known_without_a_network_or_not_at_all(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert base_offline(str(tiny_base), tmp_path).shape == shape_of_folder(tiny_base)
    assert base_offline(DEFAULT_BASE, tmp_path).shape == SMOLLM2_135M
    unknown = base_offline("owner/model", tmp_path)
    assert (unknown.shape, unknown.why_not) == (None, "the base model owner/model is not on this machine yet")
    copy = tmp_path / "hub" / "models--owner--model"
    shutil.copytree(tiny_base, copy / "snapshots" / "abc")
    (copy / "refs").mkdir()
    (copy / "refs" / "main").write_text("abc")
    assert base_offline("owner/model", tmp_path).shape == shape_of_folder(tiny_base)
