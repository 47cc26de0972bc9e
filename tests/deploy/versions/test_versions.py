"""Versions on disk: named by their bytes, complete or absent, never changed."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.versions.versions import find_version, list_versions, load_version, publish_version
from infra.artifact import finished_record, read_record, version_name, write_record
from infra.errors import CorruptArtifact, NotFound
from tests.deploy.stages import finished_stage


def test_a_version_is_a_copy_under_the_name_of_its_bytes(tmp_path: Path) -> None:
    stage = finished_stage(tmp_path / "stage")
    version = publish_version(stage, tmp_path / "versions")
    record = read_record(stage)
    assert record is not None and version.name == f"v{record.digest[:16]}" and version.record == record
    assert (version.kind, version.path.name, version.folder.name) == ("adapter", "adapter", version.name)
    assert version.probe is not None and version.probe.exists()
    shutil.rmtree(stage)
    assert load_version(tmp_path / "versions", version.name) == version
    assert list_versions(tmp_path / "versions") == [version.name]


def test_whole_models_are_versions_too(tmp_path: Path) -> None:
    version = publish_version(finished_stage(tmp_path / "stage", kind="model"), tmp_path / "versions")
    assert version.kind == "model" and version.path.name == "model"


def test_publishing_again_or_at_once_changes_nothing(tmp_path: Path) -> None:
    stage = finished_stage(tmp_path / "stage")
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: publish_version(stage, tmp_path / "versions"), range(8)))
    assert len({v.name for v in versions}) == 1
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [versions[0].name]  # no staging left


def test_what_was_trained_and_never_released_is_found_by_its_name(tmp_path: Path) -> None:
    stages, versions = tmp_path / "stages", tmp_path / "versions"
    stage, reward = finished_stage(stages / "one", "one"), finished_stage(stages / "two", "two")
    record, second = read_record(stage), read_record(reward)
    assert record is not None and second is not None
    write_record(reward, finished_record(name="r", key=second.key, digest=second.digest, result={"product": "reward"}))
    (stages / "torn").mkdir()
    with pytest.raises(NotFound, match="no version 'vnone'"):
        find_version(versions, stages, "vnone")
    with pytest.raises(NotFound):
        find_version(versions, stages, version_name(second.digest))
    found = find_version(versions, stages, version_name(record.digest))
    shutil.rmtree(stages)
    assert find_version(versions, stages, found.name) == found


def test_what_a_crash_left_is_made_again(tmp_path: Path) -> None:
    stage = finished_stage(tmp_path / "stage")
    record = read_record(stage)
    assert record is not None
    half = tmp_path / "versions" / f"v{record.digest[:16]}" / "adapter"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_text("cut")
    with pytest.raises(NotFound):
        load_version(tmp_path / "versions", half.parent.name)
    assert list_versions(tmp_path / "versions") == []
    assert publish_version(stage, tmp_path / "versions").path == half


def test_a_stage_that_is_unfinished_or_changed_is_refused(tmp_path: Path) -> None:
    stage = finished_stage(tmp_path / "changed")
    (stage / "adapter" / "adapter_model.safetensors").write_text("other")
    with pytest.raises(CorruptArtifact, match="digest"):
        publish_version(stage, tmp_path / "versions")
    unfinished = finished_stage(tmp_path / "unfinished", "x")
    (unfinished / "record.json").unlink()
    with pytest.raises(CorruptArtifact, match="not finished"):
        publish_version(unfinished, tmp_path / "versions")
    assert list_versions(tmp_path / "versions") == []


def test_a_version_that_was_changed_or_renamed_is_refused(tmp_path: Path) -> None:
    version = publish_version(finished_stage(tmp_path / "stage"), tmp_path / "versions")
    weights = version.path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("truncated")
    with pytest.raises(CorruptArtifact, match="changed or cut"):
        load_version(tmp_path / "versions", version.name)
    version.folder.rename(tmp_path / "versions" / "v0000000000000000")
    with pytest.raises(CorruptArtifact, match="holds"):
        load_version(tmp_path / "versions", "v0000000000000000")


@pytest.mark.parametrize("name", ["vmissing", "../versions", "", "/etc"])
def test_names_that_are_not_there_are_not_found(tmp_path: Path, name: str) -> None:
    publish_version(finished_stage(tmp_path / "stage"), tmp_path / "versions")
    with pytest.raises(NotFound, match="publish it first"):
        load_version(tmp_path / "versions", name)


def test_what_equals_a_lora_is_published_as_one_too(tiny_base: Path, tmp_path: Path) -> None:
    """VeRA: an engine that knows only LoRA is given the conversion, and the version's own probe proves it."""
    import torch
    from peft import VeraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from deploy.engines.vllm import DIALECT as VLLM
    from deploy.versions.versions import publish_version
    from infra.artifact import digest_dir, finished_record, write_record
    from training.generation.generator import Generator
    from training.stages.probe import read_probe, take_probe

    torch.manual_seed(3)
    config = VeraConfig(r=4, target_modules=["q_proj", "o_proj"], task_type="CAUSAL_LM", projection_prng_key=1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "vera_lambda" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    stage = tmp_path / "stage"
    model.save_pretrained(stage / "adapter")
    take_probe(tiny_base, stage / "adapter", "adapter", "float32", stage)
    write_record(stage, finished_record(name="vera", key="k" * 64, digest=digest_dir(stage / "adapter")))
    file = publish_version(stage, tmp_path / "versions", base=tiny_base)
    assert file.plain is not None
    assert VLLM.refuses(file.path) is not None and VLLM.refuses(file.plain) is None
    generator = Generator(tiny_base, dtype="float32", threads=1)
    generator.attach("plain", file.plain)
    for prompt in read_probe(file.folder).prompts:
        assert generator.logprobs("plain", [prompt.ids])[0] == pytest.approx(prompt.version, abs=2e-3)
    assert publish_version(stage, tmp_path / "versions").plain == file.plain, "published once"
