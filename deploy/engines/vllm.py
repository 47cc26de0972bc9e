"""Describe vLLM as a serving engine (runtime LoRA; started with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.engines.dialect import Dialect, Tolerances


def why_not(path: Path) -> str | None:
    """Return why vLLM cannot load this weights folder at run time; None when it can. It serves plain LoRA only."""
    config_file = path / "adapter_config.json"
    if not config_file.exists():
        return "it is a whole model; vLLM loads those at start only, so merge is no way either: train an adapter"
    config = json.loads(config_file.read_text())
    if config.get("peft_type") != "LORA":
        return f"it is an adapter of type {config.get('peft_type')}; vLLM serves LoRA only"
    for name in ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias"):
        if config.get(name):
            return f"it sets {name}, which vLLM would ignore or refuse"
    return None


DIALECT = Dialect(
    name="vllm",
    refuses=why_not,
    lora_only=True,
    unload_waits=False,
    probe_tokens=1,  # vLLM wants to generate at least one token
    already_loaded=lambda status, message: status == 400 and "already been loaded" in message,
    float32=Tolerances(effect=0.05, base=0.02),
    low_precision=Tolerances(effect=0.1, base=0.15),
)
