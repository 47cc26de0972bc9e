"""Run flat passes through lanes: loaded models, each with the adapters that it serves.

All plain LoRA adapters share the base's lane; a whole model, and an adapter that cannot share, has a lane of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from infra.errors import UserError
from training.generation.lora import Routes
from training.generation.prefixes import Virtual
from training.generation.rows import Plan


@dataclass
class Lane:
    """One loaded model, and the adapters that go through it."""

    model: Any
    routes: Routes
    adapters: set[str] = field(default_factory=set)
    """Names served by this lane; for the base's lane, those that share the base."""
    virtual: dict[str, Virtual] = field(default_factory=dict)
    """What stands before every request of an adapter that was tuned by prefix or prompt."""

    def virtual_tokens(self, adapter: str | None) -> int:
        """Count the learned positions before a request's own tokens."""
        return self.virtual[adapter].count if adapter is not None and adapter in self.virtual else 0


def find_lane(lanes: Mapping[str | None, Lane], name: str | None) -> Lane:
    """Find the lane that serves a name; None is the base.

    Raises:
        UserError: nothing is attached under the name; the message is fit for the client.
    """
    try:
        return lanes[name]
    except KeyError:
        known = ", ".join(sorted(str(each) for each in lanes if each is not None)) or "none"
        raise UserError(f"adapter or model {name!r} is not loaded; loaded are: {known}") from None


def forward(
    model: Any, tokens: list[int], positions: list[int], keep: Sequence[int], plan: Plan, device: torch.device
) -> Tensor:
    """Run one flat pass; return the logits [len(keep), vocabulary] after the flat tokens `keep`."""
    output = model(
        input_ids=torch.tensor([tokens], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        logits_to_keep=torch.tensor(keep, device=device),
        plan=plan,
    )
    logits: Tensor = output.logits[0]
    return logits


def chosen_logprobs(logits: Tensor, targets: Sequence[int]) -> list[float]:
    """Compute each target's log-probability under its row of logits [targets, vocabulary], a few rows at a time."""
    values: list[float] = []
    for at in range(0, len(targets), 128):
        wanted = torch.tensor(targets[at : at + 128], device=logits.device)
        chosen = torch.log_softmax(logits[at : at + 128].float(), dim=-1).gather(1, wanted[:, None])
        values += chosen[:, 0].tolist()
    return values
