"""Adapters added into the weights below them, or the reason why that cannot be."""

from __future__ import annotations

from typing import Any

from infra.errors import UserError


def why_not_merged(model: Any) -> str | None:
    """Why the adapter on `model` (peft's) cannot be merged; None when it can."""
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
    """The plain model with the adapter's change in its weights.

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
