"""Attach a scalar head to the final hidden states: the score of a reward model, the value function of ppo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infra.errors import CorruptArtifact

HEAD_FILE = "head.safetensors"
NAME = "ratchet_head"
"""The head's name as a part of the model, so that it is trained, moved and clipped with it."""


class Head(nn.Module):
    """[..., width] hidden states to [...] float32 scalars.

    Begins at zero: before the first step every answer scores the same. What it gives is standardised by `mean` and
    `spread` once those are measured (a reward model's, over its training pairs).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        self.register_buffer("spread", torch.ones(()), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute the scalar of each position."""
        scores: Tensor = (hidden.float() @ self.weight - self.mean) / self.spread
        return scores

    def save(self, folder: Path) -> None:
        """Write `head.safetensors` into a folder."""
        tensors = {"weight": self.weight.detach(), "mean": self.mean, "spread": self.spread}
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / HEAD_FILE)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote.

        Raises:
            CorruptArtifact: there is no head, or it belongs to a model of another width.
        """
        try:
            tensors = load_file(folder / HEAD_FILE)
        except OSError as error:
            raise CorruptArtifact(f"{folder} has no {HEAD_FILE}; it is not a reward model; train it again") from error
        if tensors["weight"].shape != self.weight.shape:
            raise CorruptArtifact(
                f"the head in {folder} is {len(tensors['weight'])} wide, the model {len(self.weight)}; another base "
                "made it"
            )
        with torch.no_grad():
            self.weight.copy_(tensors["weight"])
            self.mean.copy_(tensors["mean"])
            self.spread.copy_(tensors["spread"])


def attach_head(model: Any) -> Head:
    """Attach a fresh head as a part of `model`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = Head(int(inner.get_output_embeddings().weight.shape[-1])).to(next(model.parameters()).device)
    model.add_module(NAME, head)
    return head


def head_of(model: Any) -> Head | None:
    """Find the head that `attach_head` put on `model`, if one did."""
    head = getattr(model, NAME, None)
    return head if isinstance(head, Head) else None


def detach_head(model: Any) -> None:
    """Take the head off again: what is left can answer and is saved as any policy."""
    if head_of(model) is not None:
        delattr(model, NAME)
