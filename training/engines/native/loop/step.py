"""Compute the loss of one optimizer step: its items to micro-batches, and each one's share of the step's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from infra.settings import Config
from training.engines.native.online.teachers import TeacherLogits
from training.engines.native.packing.batch import LossInputs, MicroBatch, TrainingBatch
from training.engines.native.packing.forward import forward, sum_per_sequence, token_logps
from training.engines.native.packing.items import Item, group_by_tokens
from training.engines.native.packing.rows import PackedRows, pack
from training.objectives.objective import Objective
from training.weights.heads import Head


@dataclass(frozen=True)
class Criterion:
    """An objective's loss with its options, and what it reads beside the policy's own log-probabilities."""

    objective: Objective
    options: Config
    """Options of the objective."""
    virtual_tokens: int = 0
    """Learned positions that the tuner puts before every row."""
    head: Head | None = None
    """Scores or values, for objectives that read them."""
    teacher: TeacherLogits | None = None
    """What reads the sequence without gradient, for objectives that have a teacher."""


class Collator:
    """Collate the items of one optimizer step into the micro-batches that it takes.

    Args:
        tokens_per_pass: most tokens of a micro-batch.
        one_row: whether sequences lie end to end in one row.
        pad: token that pads rows.
    """

    def __init__(self, objective: Objective, *, tokens_per_pass: int, one_row: bool, pad: int = 0) -> None:
        self.objective = objective
        self.tokens_per_pass = tokens_per_pass
        self.one_row = one_row
        self.pad = pad

    def __call__(self, items: Sequence[Item]) -> TrainingBatch:
        return TrainingBatch(tuple(self._micro_batch(group) for group in self._groups(items)))

    def grad_rows(self, items: Sequence[Item]) -> list[tuple[PackedRows, list[Item]]]:
        """Pack the sequences that are trained on, with the items of each micro-batch."""
        return [(self._packed(group, self._grad), group) for group in self._groups(items)]

    @property
    def _grad(self) -> list[int]:
        return [i for i in range(self.objective.sequences) if i not in self.objective.no_grad_sequences]

    def _groups(self, items: Sequence[Item]) -> list[list[Item]]:
        return [[items[index] for index in group] for group in group_by_tokens(items, self.tokens_per_pass)]

    def _micro_batch(self, items: Sequence[Item]) -> MicroBatch:
        no_grad = list(self.objective.no_grad_sequences)
        return MicroBatch(
            grad=self._packed(items, self._grad),
            no_grad=self._packed(items, no_grad) if no_grad else None,
            weight=torch.tensor([item.weight for item in items], dtype=torch.float32),
            good=torch.tensor([item.good for item in items]),
            reference=torch.tensor([item.reference for item in items], dtype=torch.float32),
            columns={
                name: torch.tensor([x for item in items for x in item.columns[name]], dtype=torch.float32)
                for name in items[0].columns
            },
        )

    def _packed(self, items: Sequence[Item], which: Sequence[int]) -> PackedRows:
        sequences = [item.sequences[i] for item in items for i in which]
        return pack(sequences, len(which), self.one_row, self.pad, "score" in self.objective.reads)


def step_losses(
    model: torch.nn.Module,
    batch: TrainingBatch,
    criterion: Criterion,
    *,
    use: Callable[[torch.Tensor], None],
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda normalizer: normalizer,
) -> tuple[float, float, dict[str, float]]:
    """Run all micro-batches of one step; hand each one's share of the step's loss to `use` (which may go backward).

    Args:
        scale: what is done to the normalizer before losses are divided by it.

    Returns:
        Sum of losses, what to divide it by, sums of metrics over items.
    """
    objective = criterion.objective
    inputs = _before_forward(model, batch, criterion)
    normalizer_of = objective.normalizer or (lambda scored: scored.weight.sum())
    normalizer = scale(torch.stack([normalizer_of(scored) for scored in inputs]).sum())
    total, metrics = 0.0, dict[str, float]()
    for micro_batch, scored in zip(batch.micro_batches, inputs, strict=True):
        loss, sums = objective.loss(_after_forward(model, micro_batch, scored, criterion), criterion.options)
        use(loss / normalizer)
        total += float(loss.detach())
        for name, value in sums.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return total, float(normalizer), metrics


def _before_forward(model: torch.nn.Module, batch: TrainingBatch, criterion: Criterion) -> list[LossInputs]:
    """What is known before any pass with gradient: the items, and the whole step's sequences without gradient."""
    made = [
        LossInputs(
            weight=micro_batch.weight,
            good=micro_batch.good,
            reference=micro_batch.reference,
            item_of_token=micro_batch.grad.item_of_token,
            counts=micro_batch.counts,
            columns=micro_batch.columns,
        )
        for micro_batch in batch.micro_batches
    ]
    columns = [] if criterion.objective.teacher else list(criterion.objective.no_grad_sequences)
    if not columns:
        return made
    logps = []
    for micro_batch in batch.micro_batches:
        assert micro_batch.no_grad is not None
        with torch.no_grad():
            of_tokens = token_logps(model, micro_batch.no_grad, criterion.virtual_tokens)
            logps.append(sum_per_sequence(of_tokens, micro_batch.no_grad).view(-1, len(columns)))
    whole = torch.cat(logps)
    reference = torch.cat([micro_batch.reference[:, columns] for micro_batch in batch.micro_batches])
    return [replace(scored, no_grad_logps=whole, no_grad_reference=reference) for scored in made]


def _after_forward(
    model: torch.nn.Module, micro_batch: MicroBatch, scored: LossInputs, criterion: Criterion
) -> LossInputs:
    """Run the model over the sequences with gradient, and fill in what the loss reads."""
    reads, rows = criterion.objective.reads, micro_batch.grad
    out = forward(
        model,
        rows,
        criterion.virtual_tokens,
        logps="score" not in reads,
        logits="logits" in reads,
        hidden=bool(reads & {"score", "values"}),
    )
    if out.hidden is not None:
        assert criterion.head is not None
        values = criterion.head(out.hidden)
        scored = (
            replace(scored, scores=values.view(len(scored.weight), -1))
            if "score" in reads
            else replace(scored, values=values)
        )
    if out.logps is not None:
        sums = sum_per_sequence(out.logps, rows).view(len(scored.weight), -1)
        scored = replace(scored, token_logps=out.logps, logps=sums)
    if out.logits is not None:
        scored = replace(scored, logits=out.logits)
    if criterion.objective.teacher:
        assert criterion.teacher is not None and micro_batch.no_grad is not None
        with torch.no_grad():
            scored = replace(scored, teacher_logits=criterion.teacher(micro_batch.no_grad))
    return scored


def in_batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Cut items into consecutive groups of `size`."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


@torch.no_grad()
def reference_logps(
    model: torch.nn.Module, items: Sequence[Item], collator: Collator, batch_size: int, virtual_tokens: int = 0
) -> list[list[float]]:
    """Score every sequence of every item under `model` as it is now, dropout off: summed log-probabilities."""
    model.eval()
    everything = Collator(
        replace(collator.objective, no_grad_sequences=(), reads=frozenset()),
        tokens_per_pass=collator.tokens_per_pass,
        one_row=collator.one_row,
        pad=collator.pad,
    )
    scores: list[list[float]] = []
    for group in in_batches([replace(item, reference=()) for item in items], batch_size):
        for micro_batch in everything(group).micro_batches:
            sums = sum_per_sequence(token_logps(model, micro_batch.grad, virtual_tokens), micro_batch.grad)
            scores += sums.view(-1, collator.objective.sequences).tolist()
    return scores
