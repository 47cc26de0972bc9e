"""What an engine cannot serve is said with the night's verdict, whatever chose the recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.engines.dialect import EMBEDDED
from deploy.engines.vllm import DIALECT as VLLM
from deploy.versions.servable import why_not_servable
from training.stages.probe import Probe


def stage(folder: Path, kind: str, config: dict[str, object], refused: str = "") -> Path:
    """A finished stage's folder, as far as the question goes."""
    (folder / kind).mkdir(parents=True)
    (folder / kind / ("config.json" if kind == "model" else "adapter_config.json")).write_text(json.dumps(config))
    (folder / "probe.json").write_text(Probe(dtype="float32", prompts=(), refused=refused).model_dump_json())
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("adapter", {"peft_type": "LORA"}, None),
        ("adapter", {"peft_type": "VERA"}, None),
        ("adapter", {"peft_type": "ADALORA"}, None),
        ("adapter", {"peft_type": "LORA", "use_dora": True}, "use_dora"),
        ("adapter", {"peft_type": "IA3"}, "vLLM serves LoRA only"),
        ("model", {}, "it is a whole model"),
    ],
)
def test_vllm_loads_lora_and_what_equals_it(
    kind: str, config: dict[str, object], why: str | None, tmp_path: Path
) -> None:
    folder = stage(tmp_path / "stage", kind, config)
    found = why_not_servable(folder, kind, VLLM)  # type: ignore[arg-type]
    assert (found is None) if why is None else (found is not None and "vllm" in found and why in found)
    assert why_not_servable(folder, kind, EMBEDDED) is None  # type: ignore[arg-type]


def test_what_is_not_what_was_trained_is_served_by_no_engine(tmp_path: Path) -> None:
    folder = stage(tmp_path / "stage", "adapter", {"peft_type": "LORA"}, refused="it does something else")
    assert why_not_servable(folder, "adapter", EMBEDDED) == "it does something else"
    (folder / "probe.json").write_text("cut off")
    assert "cannot be read" in str(why_not_servable(folder, "adapter", EMBEDDED))
