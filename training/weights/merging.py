"""Merge adapters into the weights below them, or tell why that cannot be.

What is served merged is proved first: in bfloat16 a weight keeps 8 binary digits, so a small change added to a large
weight may be rounded away without a word. The merged model's log-probabilities, in the numerics that serve, are held
beside those of the adapter on top of the base in float32 (training/weights/logprob_effects.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infra.errors import UserError
from training.weights.logprob_effects import NEGLIGIBLE, Effects, Scores, compare

if TYPE_CHECKING:
    import torch

TOLERANCES = {"float32": 0.01, "bfloat16": 0.25}
"""Dtype -> largest error of the merged effect, beside the adapter's own. Measured on random DoRA adapters of a tiny
model only (docs/guarantees.md)."""


def why_not_merged(model: Any) -> str | None:
    """Tell why the adapter on `model` (peft's) cannot be merged; None when it can."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for config in model.peft_config.values():
        if config.is_prompt_learning:
            return f"an adapter of kind {config.peft_type.value} puts virtual tokens first and changes no weight"
    for layer in model.modules():
        # peft's own base class refuses to merge; a kind that can overrides it.
        if isinstance(layer, BaseTunerLayer) and type(layer).merge is BaseTunerLayer.merge:
            kinds = ", ".join(str(getattr(c.peft_type, "value", c.peft_type)) for c in model.peft_config.values())
            return f"an adapter of kind {kinds} is no change of the weights, but of what comes out of a layer"
    if not hasattr(model, "merge_and_unload"):
        return "peft has no way to merge this kind of adapter"
    return None


def merged(model: Any, *, safe: bool = False) -> Any:
    """Merge: the plain model with the adapter's change in its weights.

    Args:
        model: peft's model.
        safe: refuse a result that is not finite (at the price of a copy of each weight).

    Raises:
        UserError: this kind of adapter cannot be merged.
    """
    reason = why_not_merged(model)
    if reason is not None:
        raise UserError(f"this adapter cannot be merged: {reason}")
    return model.merge_and_unload(safe_merge=safe)


def merged_alike(
    model: Any, dtype: torch.dtype, *, score: Callable[[Any], Scores], base_scores: Scores
) -> tuple[Any, Effects]:
    """Merge in `dtype`, and prove that the merged model does what the adapter does.

    Args:
        model: peft's model, in float32. It is used up.
        score: log-probabilities of a few fixed texts under a model.
        base_scores: the same of the untouched base in `dtype`.

    Raises:
        UserError: this kind of adapter cannot be merged, or merging it changes what it does.
    """
    reason = why_not_merged(model)
    if reason is not None:
        raise UserError(f"this adapter cannot be merged: {reason}")
    inner = model.get_base_model()
    on_top = score(inner)
    with model.disable_adapter():
        plain = score(inner)
    result = merged(model, safe=True).eval().to(dtype)
    effects = compare(version=score(result), base=base_scores, wanted_version=on_top, wanted_base=plain)
    name = str(dtype).removeprefix("torch.")
    if effects.error > NEGLIGIBLE and not effects.same(TOLERANCES[name]):
        raise UserError(
            f"merged into the base in {name}, the adapter no longer does what it did on top of it: {effects} (allowed "
            f"{TOLERANCES[name]:g} and twice the base's difference); train a tuner that shares the base, such as lora"
            + (", or serve in float32" if name != "float32" else "")
        )
    return result, effects
