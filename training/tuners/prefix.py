"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190): learned keys and values stand before the first token.

Each layer gets `tokens` pairs of its own that every position attends to; no weight of the model changes. They begin as
the activations of real words, which the paper found far better than noise (section 7.4), so no reparametrising network
is needed. The embedded engine puts them into a request's cache: any number share one loaded base.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from infra.settings import Config
from training.tuners.tuner import ModelShape, Tuner


class PrefixOptions(Config):
    """Options of prefix tuning."""

    tokens: int = Field(default=16, ge=1, le=512)
    """Virtual tokens (the paper: 10 for tables to text, up to 200 for summaries)."""


def attach(model: Any, options: PrefixOptions, base_name: str) -> Any:
    """Wrap `model` with a fresh prefix called "default"."""
    import torch
    from peft import PrefixTuningConfig

    from training.tuners.attach import attach_adapter, words_for

    ids = torch.tensor([words_for(model, options.tokens)], device=model.device)
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    wrapped = attach_adapter(
        model, PrefixTuningConfig(num_virtual_tokens=options.tokens, prefix_projection=False, task_type="CAUSAL_LM")
    )
    # [layers x 2, heads, tokens, size] -> [tokens, layers x 2 x heads x size], the order that peft unfolds.
    pairs = torch.stack([t[0] for layer in cache.layers for t in (layer.keys, layer.values)])
    flat = pairs.permute(2, 0, 1, 3).reshape(options.tokens, -1)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        weight.copy_(flat.to(weight.dtype))
    return wrapped


def parameters(shape: ModelShape, options: PrefixOptions) -> int:
    """A key and a value for each virtual token and layer."""
    return options.tokens * shape.layers * 2 * shape.kv_width


TUNER = Tuner(
    name="prefix",
    summary="learned keys and values before the first token, in every layer (Li and Liang 2021)",
    options=PrefixOptions,
    attach=attach,
    parameters=parameters,
    peft_type="PREFIX_TUNING",
    merges=False,
    packs=False,
    identity_at_init=False,
    recomputes=False,  # a cache is not recomputed
    virtual_tokens="keys_values",
    lr_multiplier_vs_full=50.0,
    learning_rates=(3e-3, 1e-2),
    cost=1.1,
)
