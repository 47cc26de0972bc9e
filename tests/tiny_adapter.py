"""A random LoRA adapter for the tiny base, made by peft, strong enough that its greedy answers are its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def build_tiny_adapter(base: Path, path: Path, *, seed: int, scale: float = 1.0, **lora: Any) -> Path:
    """Write the adapter to `path` and return it. The same seed gives the same bytes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wrapped = get_peft_model(
        model,
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", **lora),
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    wrapped.peft_config["default"].base_model_name_or_path = "tiny"  # no path of this machine in an artifact
    wrapped.save_pretrained(path)
    return path
