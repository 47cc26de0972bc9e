"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learned embeddings stand before the first token.

The smallest adapter there is (`tokens` x width numbers) and the weakest on small models: the paper sees it reach full
fine-tuning only around ten billion parameters. It begins as the embeddings of real words (section 3.2). The embedded
engine runs them through the base once and keeps their keys and values: any number share one loaded base.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class PromptOptions(Config):
    """Options of prompt tuning."""

    tokens: int = Field(default=20, ge=1, le=512)
    """Virtual tokens (the paper: 20 to 100)."""


def attach(model: Any, options: PromptOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh prompt called "default"."""
    import torch
    from peft import PromptTuningConfig

    from training.tuners.attach import attach_adapter, words_for

    ids = torch.tensor(words_for(model, options.tokens), device=model.device)
    with torch.no_grad():
        words = model.get_input_embeddings()(ids).detach().clone()
    wrapped = attach_adapter(model, PromptTuningConfig(num_virtual_tokens=options.tokens, task_type="CAUSAL_LM"))
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(words.to(weight.dtype))
    return wrapped


def parameters(shape: ModelShape, options: PromptOptions) -> int:
    """An embedding for each virtual token."""
    return options.tokens * shape.hidden


TUNER = Tuner(
    name="prompt",
    summary="learned embeddings before the first token; for large models (Lester et al. 2021)",
    options=PromptOptions,
    attach=attach,
    parameters=parameters,
    peft_type="PROMPT_TUNING",
    merges=False,
    packs=False,
    identity_at_init=False,
    virtual_tokens="embeddings",
    lr_multiplier_vs_full=100.0,
    learning_rates=(1e-2, 3e-2),
    cost=1.1,
)
