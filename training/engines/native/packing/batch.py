"""Hold the batch of one optimizer step as micro-batches, and what a loss reads of each after its forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from training.engines.native.packing.forward import sum_per_sequence
from training.engines.native.packing.rows import PackedRows, on_device

NOTHING = torch.zeros(0, 0)
"""Stands for what an objective's loss does not read."""


@dataclass(frozen=True)
class MicroBatch:
    """Items that go through the model at once. I items, k sequences with and q without gradient in each."""

    grad: PackedRows
    """The sequences that are trained on, I x k."""
    no_grad: PackedRows | None
    """The sequences that are scored only, I x q; None where the objective has none."""
    weight: torch.Tensor
    """[I] weights of the items."""
    good: torch.Tensor
    """[I] whether each item is an example of what is wanted."""
    reference: torch.Tensor
    """[I, k + q] summed log-probabilities under the reference, or [I, 0]."""
    columns: Mapping[str, torch.Tensor]
    """Name -> [n] what else is known of each loss token."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.grad.tokens + (self.no_grad.tokens if self.no_grad is not None else 0)

    @property
    def counts(self) -> torch.Tensor:
        """[I, k] numbers of loss tokens."""
        ones = torch.ones_like(self.grad.targets, dtype=torch.float32)
        return sum_per_sequence(ones, self.grad).view(len(self.weight), -1)


@dataclass(frozen=True)
class TrainingBatch:
    """The micro-batches of one optimizer step."""

    micro_batches: tuple[MicroBatch, ...]

    def to(self, device: torch.device) -> TrainingBatch:
        """Move every tensor to a device; the name by which accelerate asks for it."""
        return on_device(self, device)

    def padded(self, count: int) -> TrainingBatch:
        """Repeat the last micro-batch with no weight until there are `count`."""
        last = self.micro_batches[-1]
        empty = replace(last, weight=last.weight * 0)
        return replace(self, micro_batches=self.micro_batches + (empty,) * (count - len(self.micro_batches)))

    @property
    def items(self) -> int:
        """Number of items."""
        return sum(len(micro_batch.weight) for micro_batch in self.micro_batches)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(micro_batch.tokens for micro_batch in self.micro_batches)


@dataclass(frozen=True)
class LossInputs:
    """A micro-batch as a loss sees it. I items, k sequences with and q without gradient in each, n loss tokens."""

    weight: torch.Tensor
    """[I] weights of the items."""
    good: torch.Tensor
    """[I] whether each item is an example of what is wanted."""
    reference: torch.Tensor
    """[I, k + q] summed log-probabilities under the reference, or [I, 0]."""
    item_of_token: torch.Tensor
    """[n] which item each loss token belongs to."""
    counts: torch.Tensor
    """[I, k] numbers of loss tokens."""
    columns: Mapping[str, torch.Tensor]
    """Name -> [n] what else is known of each loss token."""
    no_grad_logps: torch.Tensor = NOTHING
    """[all items of the step, q] summed log-probabilities of the sequences without gradient."""
    no_grad_reference: torch.Tensor = NOTHING
    """[all items of the step, q] the same under the reference."""
    token_logps: torch.Tensor = NOTHING
    """[n] log-probabilities of the loss tokens, with gradient."""
    logps: torch.Tensor = NOTHING
    """[I, k] their sums over each sequence."""
    scores: torch.Tensor = NOTHING
    """[I, k] the head's score at each sequence's end, with gradient, where the loss reads scores."""
    values: torch.Tensor = NOTHING
    """[n] the head's value before each loss token, with gradient, where the loss reads values."""
    logits: torch.Tensor = NOTHING
    """[n, vocabulary] with gradient, where the loss reads whole distributions."""
    teacher_logits: torch.Tensor = NOTHING
    """[n, vocabulary] the teacher's for the same tokens, without gradient."""
