"""Looks before the night are about the configured base, its memory, and the machine that is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import training.hardware
from flows.cli.app import app
from flows.config.pipeline import PipelineConfig
from flows.planning.gate_power import describe_gate_power, expected_challengers
from flows.stack.doctor import examine
from flows.stack.finding import Finding
from tests.large_base import write_large_base
from training.hardware import Accelerators, Gpu


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large_base(tmp_path_factory.mktemp("large") / "seven")


def pipeline(home: Path, **sections: Any) -> PipelineConfig:
    values = {"pipeline": "desk", "places": {"home": str(home), "cache": str(home)}, "gate": {"min_units": 5}}
    return PipelineConfig.model_validate(values | sections)


def test_challengers_that_do_not_fit_the_configured_base_are_not_counted(tmp_path: Path, large: Path) -> None:
    training = {"methods": ["sft-lora", "sft-full"], "memory_gb": 24, "dtype": "bfloat16"}
    assert expected_challengers(pipeline(tmp_path, training=training), "default") == 2  # the default base is small
    config = pipeline(tmp_path, training=training, base_model=str(large))
    assert expected_challengers(config, "default") == 1
    [said] = describe_gate_power(config)
    assert "not counted: sft-full: sft with full needs about" in said and "the machine has 24.0 GB" in said


def test_a_base_that_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    training = {"methods": ["sft-lora", "sft-full"], "memory_gb": 24}
    config = pipeline(tmp_path, training=training, base_model="owner/model")
    assert expected_challengers(config, "default") == 2
    said = "the base model owner/model is not on this machine yet, so recipes are counted whatever memory and time"
    assert said in describe_gate_power(config)[0]
    (tmp_path / "ratchet.yaml").write_text("pipeline: p\nbase_model: owner/model\nplaces: {cache: cache}\n")
    told = _advise(tmp_path)
    assert told["figures_for"] is None and told["stages"] == [] and told["recipe"] == "sft-lora"


def test_advice_is_about_the_configured_base_unless_another_is_named(
    tmp_path: Path, tiny_base: Path, large: Path
) -> None:
    (tmp_path / "ratchet.yaml").write_text(f"pipeline: p\nbase_model: {large}\ntraining: {{dtype: bfloat16}}\n")
    own, named = _advise(tmp_path), _advise(tmp_path, "--base", str(tiny_base))
    assert own["figures_for"] == str(large) and own["stages"][0]["memory_bytes"] > 2 * 6.7e9
    assert named["figures_for"] == str(tiny_base) and named["stages"][0]["memory_bytes"] < 2e9
    small = _advise(tmp_path, memory="4")
    assert small["verdict"] == "not ready"
    assert "13.6 weights + " in small["instead"][0] and "the machine has 4.0 GB" in small["instead"][0]


def _advise(folder: Path, *more: str, memory: str = "64") -> Any:
    data = folder / "data.jsonl"
    data.write_text('{"shape": "completion"}\n' * 300)
    asked = ["advise", "-c", str(folder / "ratchet.yaml"), "--data", str(data), "--memory-gb", memory, "--json", *more]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout[done.stdout.index("{") :])


def _findings(config: PipelineConfig) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(config)}


def test_the_doctor_says_what_torch_sees_and_what_is_computed_in(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline(tmp_path, base_model=str(tiny_base))

    def with_gpus(*gpus: Gpu, build: str, warning: str = "") -> dict[str, Finding]:
        seen = Accelerators(gpus=gpus, build=build, warning=warning)
        monkeypatch.setattr(training.hardware, "accelerators", lambda: seen)
        return _findings(config)

    new = Gpu(name="New", memory=80 * 10**9, bfloat16=True)
    found = with_gpus(new, new, build="CUDA 13.0")
    said = "torch (CUDA 13.0) sees 2: New, 80.0 GB, bfloat16; New, 80.0 GB, bfloat16; training computes in bfloat16"
    assert found["GPU"].result.startswith(said)
    assert "cuda130" in found["bitsandbytes"].result
    assert (found["processor"].state, found["processor"].advice) == ("ok", "")
    old = with_gpus(Gpu(name="Old", memory=16 * 10**9, bfloat16=False), build="CUDA 13.0")["GPU"].result
    assert "no bfloat16 of its own; training computes in float32" in old
    none = with_gpus(build="CUDA 13.0", warning="the driver is too old")
    assert none["GPU"].state == "warning" and "the driver is too old" in none["GPU"].result
    assert "training computes in" in none["processor"].result
    assert "torch is a CPU build" in with_gpus(build="CPU")["GPU"].result
