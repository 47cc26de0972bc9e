"""LoRA (Hu et al. 2021, arXiv:2106.09685): every linear layer W gets a trained low-rank term (alpha / r) B A.

On all linear layers, not only attention: that is what matches full fine-tuning on small data (Biderman et al. 2024,
arXiv:2405.09673; Schulman et al. 2025).

PiSSA and OLoRA begin from parts of W itself and train on what is left of it: W = (W - s B0 A0) + s B A. What they save
is therefore not B and A, which would need the changed base, but the plain LoRA of twice the rank
s [B, -B0] [A; A0], which says the same on the untouched base (PiSSA, section 3 and its appendix on conversion). A
stage that goes on from one goes on as that plain LoRA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner

START = "ratchet_start"
"""Attribute of the wrapped model that keeps B0 and A0 by name."""


class LoraOptions(Config):
    """Options of LoRA."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank r of the update. Left out of a recipe: by the amount of data."""
    alpha: float | None = Field(default=None, gt=0)
    """Scale: the update is multiplied by alpha / r. Default: 2 r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before A. Off in objectives that compare log-probabilities (dpo, kto, grpo and their like)."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""
    init: Literal["default", "pissa", "olora"] = "default"
    """default: A random, B zero. pissa: the principal singular vectors (Meng et al. 2024, arXiv:2404.02948). olora: an
    orthonormal basis by QR (Buyukakyuz 2024, arXiv:2406.01775). Both save a plain LoRA of twice the rank."""


def attach(model: Any, options: LoraOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh adapter called "default"."""
    from training.tuners.attach import attach_lora

    how = True if options.init == "default" else options.init
    wrapped = attach_lora(model, options, use_rslora=options.rslora, init_lora_weights=how)
    if options.init != "default":
        start = {name: p.detach().clone() for name, p in wrapped.named_parameters() if ".lora_" in name}
        setattr(wrapped, START, start)
    return wrapped


def save(model: Any, folder: Path) -> None:
    """Peft's files; for an adapter that began from parts of the base, those of the plain LoRA that equals it."""
    from training.weights.files import save_weights

    start = getattr(model, START, None)
    if start is None:
        save_weights(model, folder)
        return
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"]
    tensors = {}
    for name, trained in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        began = start[name.replace(".weight", ".default.weight")]
        if "lora_A" in name:
            tensors[name] = torch.cat([trained, began.to(trained)], dim=0).contiguous()
        else:
            tensors[name] = torch.cat([trained, -began.to(trained)], dim=1).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    plain = type(config).from_peft_type(**config.to_dict())
    plain.lora_alpha = config.lora_alpha * (2**0.5 if config.use_rslora else 2)  # keeps alpha / r, or alpha / sqrt(r)
    plain.r, plain.init_lora_weights, plain.inference_mode = 2 * config.r, True, True
    plain.save_pretrained(folder)


def parameters(shape: ModelShape, options: LoraOptions) -> int:
    """r (inputs + outputs) for each linear layer."""
    return sum(options.rank * (inputs + outputs) for _, inputs, outputs in shape.linears)


def saved(shape: ModelShape, options: LoraOptions) -> int:
    """Twice that for an adapter that began from parts of the base."""
    return parameters(shape, options) * (1 if options.init == "default" else 2)


TUNER = Tuner(
    name="lora",
    summary="a low-rank term beside every linear layer (Hu et al. 2021)",
    options=LoraOptions,
    attach=attach,
    parameters=parameters,
    peft_type="LORA",
    saves_plain_lora=True,
    rank_bounds=(8, 64),
    saved=saved,
    save=save,
)
