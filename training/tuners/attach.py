"""Attach a fresh adapter to a model and save it, or refuse a model that has no place for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import UserError

_AS_LORA = "ratchet_save_as_lora"
"""Attribute of the wrapped model: how it is to be saved."""


def attach_adapter(model: Any, config: Any) -> Any:
    """Wrap `model` by peft with a fresh adapter called "default", in the dtypes it has.

    Raises:
        UserError: the model has none of the layers that the adapter goes on.
    """
    from peft import get_peft_model

    kind = getattr(config.peft_type, "value", config.peft_type)
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UserError(
            f"an adapter of kind {kind} cannot be put on a model of type {model.config.model_type!r}: "
            f"{str(error).splitlines()[0]}; use another tuner, or another base model"
        ) from error


def attach_convertible(model: Any, config: Any, as_lora: bool) -> Any:
    """Attach an adapter of a kind that equals a LoRA; `as_lora` says what `save_convertible` is to write."""
    wrapped = attach_adapter(model, config)
    setattr(wrapped, _AS_LORA, as_lora)
    return wrapped


def save_convertible(model: Any, folder: Path) -> None:
    """Save what `attach_convertible` wrapped: peft's files, or those of the plain LoRA that equals it."""
    from training.tuners.lora_conversion import save_as_lora
    from training.weights.files import save_weights

    (save_as_lora if getattr(model, _AS_LORA, False) else save_weights)(model, folder)


def attach_lora(model: Any, options: Any, **more: Any) -> Any:
    """Attach a LoRA adapter to every linear layer of the blocks, with the rank, alpha and dropout of `options`."""
    from peft import LoraConfig

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha or 2 * options.rank,
        lora_dropout=getattr(options, "dropout", 0.0),
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        **more,
    )
    return attach_adapter(model, config)


def layers_called(model: Any, wanted: Sequence[Sequence[str]], kind: str) -> list[str]:
    """Find the first group of `wanted` whose every name ends the name of some linear layer of the model.

    Raises:
        UserError: it has none of these groups.
    """
    import torch

    have = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    for group in wanted:
        if set(group) <= have:
            return list(group)
    raise UserError(
        f"{kind} knows no place in a model of type {model.config.model_type!r}: expected linear layers called "
        f"{' or '.join(' and '.join(group) for group in wanted)}, found {', '.join(sorted(have)) or 'none'}; use lora"
    )


def words_for(model: Any, count: int) -> list[int]:
    """Make `count` tokens of ordinary words, repeated if need be, by the tokenizer in the model's own folder.

    Virtual tokens begin as these: both papers that introduced them found real words to start far better from than
    noise (Li and Liang 2021, section 7.4; Lester et al. 2021, section 3.2).
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.name_or_path, local_files_only=True)
    text = "You are a helpful assistant. Read what the user asks, and answer it correctly and briefly.\n"
    ids = tokenizer(text, add_special_tokens=True)["input_ids"]
    return [int(ids[index % len(ids)]) for index in range(count)]
