"""A stage's key: what is asked for, and never where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from infra.errors import NotFound, UserError
from tests.training.world import job_for
from training.recipes.memory import shape_of_folder
from training.recipes.recipe import StageSpec
from training.stages.job import StageJob, stage_key
from training.stages.launch import launch_stage

SFT = StageSpec(objective="sft", tuner="lora")


def test_moving_every_folder_keeps_the_key(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(SFT, tmp_path, tiny_base)
    there = tmp_path / "elsewhere"
    there.mkdir()
    for name in ("train.jsonl", "validation.jsonl"):
        shutil.copy(tmp_path / name, there / name)
    shutil.copytree(tiny_base, there / "base")
    moved = job_for(SFT, there, there / "base", checkpoint_seconds=1.0)
    assert moved.stages_dir != job.stages_dir and moved.base.path != job.base.path
    assert stage_key(moved) == stage_key(job)
    assert str(tmp_path) not in json.dumps(job.spec.model_dump(mode="json"))


def test_a_job_survives_its_file(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(SFT, tmp_path, tiny_base)
    again = StageJob.model_validate_json(job.model_dump_json())
    assert again == job and again.key == job.key


def test_defaults_given_or_left_out_are_the_same_key(tmp_path: Path, tiny_base: Path) -> None:
    job = job_for(SFT, tmp_path, tiny_base)
    said = SFT.model_copy(update={"learning_rate": job.spec.learning_rate, "tuner_options": {"rank": 8}})
    assert job_for(said, tmp_path, tiny_base).key == job.key


@pytest.mark.parametrize(
    "change",
    [{"epochs": 7.0}, {"learning_rate": 3e-4}, {"tuner_options": {"rank": 4}}, {"objective": "dpo"}, {"tuner": "full"}],
)
def test_what_is_asked_for_changes_the_key(tmp_path: Path, tiny_base: Path, change: dict[str, object]) -> None:
    job = job_for(SFT, tmp_path, tiny_base)
    assert job_for(SFT.model_copy(update=change), tmp_path, tiny_base).key != job.key
    other_seed = job.model_copy(update={"seed": 1})
    other_data = job.model_copy(update={"train_digest": "0" * 64})
    assert len({job.key, other_seed.key, other_data.key}) == 3


def test_a_base_of_another_kind_is_refused_in_words(tmp_path: Path, tiny_base: Path) -> None:
    """GPT-2's config has other names for its widths."""
    config = json.loads((tiny_base / "config.json").read_text())
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
    config = {names.get(name, name): value for name, value in config.items()} | {"model_type": "gpt2"}
    other = shutil.copytree(tiny_base, tmp_path / "gpt2")
    (other / "config.json").write_text(json.dumps(config))
    said = r"\(model_type gpt2\) has no hidden_size, num_hidden_layers, num_attention_heads; expected a model whose"
    with pytest.raises(UserError, match=said):
        job_for(SFT, tmp_path, other)
    with pytest.raises(UserError, match=said):
        shape_of_folder(other)


def test_mistakes_are_said_before_any_work(tmp_path: Path, tiny_base: Path) -> None:
    with pytest.raises(UserError, match=r"tuner lora.*rnak"):
        job_for(SFT.model_copy(update={"tuner_options": {"rnak": 4}}), tmp_path, tiny_base)
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(NotFound, match="holds no example that sft learns from"):
        job_for(SFT, tmp_path, tiny_base)


@pytest.mark.slow
def test_activations_are_recomputed_where_memory_asks_and_the_weights_are_the_same(
    tmp_path: Path, tiny_base: Path
) -> None:
    usual, explicit = job_for(SFT, tmp_path, tiny_base), SFT.model_copy(update={"gradient_checkpointing": False})
    assert usual.spec.gradient_checkpointing is False and "gradient_checkpointing" not in usual.chosen
    assert job_for(explicit, tmp_path, tiny_base, memory=1).spec == usual.spec  # a person's word counts
    tight = job_for(SFT, tmp_path, tiny_base, memory=10**8)
    assert tight.spec.gradient_checkpointing is True and tight.key != usual.key
    assert "would not fit 0.1 GB" in tight.chosen["gradient_checkpointing"]
    prefix = job_for(StageSpec(objective="sft", tuner="prefix"), tmp_path, tiny_base, memory=1)
    assert prefix.spec.gradient_checkpointing is False  # a cache is not recomputed
    folders = [job.stages_dir / launch_stage(job).key for job in (usual, tight)]
    weights = [{p.name: p.read_bytes() for p in folder.rglob("*.safetensors")} for folder in folders]
    assert weights[0] and weights[0] == weights[1]
