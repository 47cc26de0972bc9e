"""Load a base model, plain or in 4 bits, place it, and load an adapter onto it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load_plain(path: Path, dtype: str, quantised: bool = False) -> Any:
    """Load a causal language model from a folder, in evaluation mode, on the CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    kwargs: dict[str, Any] = {"dtype": getattr(torch, dtype), "trust_remote_code": False, "use_safetensors": True}
    if quantised:
        from transformers import BitsAndBytesConfig

        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    model = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    model.config.use_cache = False
    return model.eval()


def placed(model: Any, quantised: bool = False) -> Any:
    """Put `model` on the first GPU, where there is one: what reads before the trainer does has to find it there.

    Quantised weights go there by themselves, and those of several processes where they are split.
    """
    from training.engines.native.kernels.distributed import world_size
    from training.hardware import device_name

    return model if quantised or world_size() > 1 else model.to(device_name())


def load_adapter(model: Any, folder: Path, trainable: bool) -> Any:
    """Load the adapter saved in `folder` onto `model`, in the model's own dtype."""
    from peft import PeftModel

    import training.weights.bottleneck_peft  # noqa: F401  # peft learns of that kind

    return PeftModel.from_pretrained(model, folder, is_trainable=trainable, autocast_adapter_dtype=False)
