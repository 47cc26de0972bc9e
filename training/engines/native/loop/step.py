"""One optimizer step: its items to passes through the model, and each pass's share of the step's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.engines.native.packing.forward import lay_out, per_sequence, read, token_logps
from training.engines.native.packing.tokenization import Item, passes
from training.objectives import Objective
from training.weights.heads import Head


@dataclass
class Pass:
    """One pass through the model, as a loss sees it. I items, k live and q quiet sequences in each, n loss tokens."""

    weight: torch.Tensor
    """[I] weights of the items."""
    good: torch.Tensor
    """[I] whether each item is an example of what is wanted."""
    reference: torch.Tensor
    """[I, k + q] summed log-probabilities under the reference, or [I, 0]."""
    item_of_token: torch.Tensor
    """[n] which item each loss token belongs to."""
    token_logps: torch.Tensor
    """[n] log-probabilities of the loss tokens, with gradient."""
    logps: torch.Tensor
    """[I, k] their sums over each sequence."""
    counts: torch.Tensor
    """[I, k] numbers of loss tokens."""
    step_quiet: torch.Tensor
    """[all items of the step, q] summed log-probabilities of the quiet sequences, without gradient."""
    step_quiet_reference: torch.Tensor
    """[all items of the step, q] the same under the reference."""
    columns: dict[str, torch.Tensor]
    """Name -> [n] what else is known of each loss token."""
    scores: torch.Tensor
    """[I, k] the head's score at each sequence's end, with gradient, where the loss reads scores."""
    values: torch.Tensor
    """[n] the head's value before each loss token, with gradient, where the loss reads values."""
    logits: torch.Tensor
    """[n, vocabulary] with gradient, where the loss reads whole distributions."""
    teacher_logits: torch.Tensor
    """[n, vocabulary] the teacher's for the same tokens, without gradient."""


class Collator:
    """Items of one optimizer step to the passes that it takes."""

    def __init__(self, objective: Objective, *, tokens_per_pass: int, pack: bool, pad: int) -> None:
        self.objective = objective
        self.tokens_per_pass = tokens_per_pass
        self.pack = pack
        self.pad = pad

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        live = [i for i in range(self.objective.sequences) if i not in self.objective.quiet]
        made = []
        for group in passes(items, self.tokens_per_pass):
            chosen = [items[index] for index in group]
            one: dict[str, Any] = {
                "live": self._lay_out(chosen, live),
                "weight": torch.tensor([item.weight for item in chosen], dtype=torch.float32),
                "good": torch.tensor([item.good for item in chosen]),
                "reference": torch.tensor([item.reference for item in chosen], dtype=torch.float32),
                "columns": {
                    name: torch.tensor([x for item in chosen for x in item.columns[name]], dtype=torch.float32)
                    for name in chosen[0].columns
                },
            }
            if self.objective.quiet:
                one["quiet"] = self._lay_out(chosen, list(self.objective.quiet))
            made.append(one)
        return {"passes": made}

    def laid_out(self, items: list[Item]) -> list[tuple[dict[str, Any], list[Item]]]:
        """The live sequences of items in the passes they take, with the items of each pass."""
        live = [i for i in range(self.objective.sequences) if i not in self.objective.quiet]
        groups = [[items[index] for index in group] for group in passes(items, self.tokens_per_pass)]
        return [(self._lay_out(group, live), group) for group in groups]

    def _lay_out(self, items: list[Item], which: list[int]) -> dict[str, Any]:
        sequences = [item.sequences[i] for item in items for i in which]
        return lay_out(sequences, len(which), self.pack, self.pad, "score" in self.objective.reads)


def step_losses(
    model: torch.nn.Module,
    batch: dict[str, Any],
    objective: Objective,
    options: Any,
    *,
    offset: int = 0,
    head: Head | None = None,
    teacher: Callable[[dict[str, Any]], torch.Tensor] | None = None,
    use: Callable[[torch.Tensor], None],
    scale: Callable[[torch.Tensor], torch.Tensor] = lambda mass: mass,
) -> tuple[float, float, dict[str, float]]:
    """Run all passes of one step; hand each pass's share of the step's loss to `use` (which may go backward).

    Args:
        head: scores or values, for objectives that read them.
        teacher: what was laid out of the quiet sequence -> the teacher's logits, for objectives that have one.

    Returns:
        Sum of losses, what to divide it by, sums of metrics over items.
    """
    quiet, quiet_reference = [], []
    columns = [] if objective.teacher else list(objective.quiet)
    for one in batch["passes"]:
        if columns:
            with torch.no_grad():
                scores = per_sequence(token_logps(model, one["quiet"], offset), one["quiet"])
            quiet.append(scores.view(-1, len(columns)))
            quiet_reference.append(one["reference"][:, columns])
    nothing = torch.zeros(0, 0)
    scored: list[Pass] = []
    for one in batch["passes"]:
        live = one["live"]
        scored.append(
            Pass(
                weight=one["weight"],
                good=one["good"],
                reference=one["reference"],
                item_of_token=live["item_of_token"],
                token_logps=nothing,
                logps=nothing,
                counts=per_sequence(torch.ones_like(live["targets"], dtype=torch.float32), live).view(
                    len(one["weight"]), -1
                ),
                step_quiet=torch.cat(quiet) if quiet else nothing,
                step_quiet_reference=torch.cat(quiet_reference) if quiet else nothing,
                columns=one["columns"],
                scores=nothing,
                values=nothing,
                logits=nothing,
                teacher_logits=nothing,
            )
        )
    mass_of = objective.mass or (lambda p: p.weight.sum())
    mass = scale(torch.stack([mass_of(p) for p in scored]).sum())
    total, metrics = 0.0, dict[str, float]()
    for one, p in zip(batch["passes"], scored, strict=True):
        _run(model, one, p, objective, offset, head)
        if objective.teacher:
            assert teacher is not None
            with torch.no_grad():
                p.teacher_logits = teacher(one["quiet"])
        loss, seen = objective.loss(p, options)
        use(loss / mass)
        total += float(loss.detach())
        for name, value in seen.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return total, float(mass), metrics


def _run(
    model: torch.nn.Module, one: dict[str, Any], p: Pass, objective: Objective, offset: int, head: Head | None
) -> None:
    """Run the model over a pass's live sequences and fill in what the loss reads."""
    live, reads = one["live"], objective.reads
    out = read(
        model,
        live,
        offset,
        logps="score" not in reads,
        logits="logits" in reads,
        hidden=bool(reads & {"score", "values"}),
    )
    if out.hidden is not None:
        assert head is not None
        values = head(out.hidden)
        if "score" in reads:
            p.scores = values.view(len(p.weight), -1)
        else:
            p.values = values
    if out.logps is not None:
        p.token_logps = out.logps
        p.logps = per_sequence(out.logps, live).view(len(p.weight), -1)
    if out.logits is not None:
        p.logits = out.logits


def in_batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Consecutive groups of `size` items."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


@torch.no_grad()
def reference_scores(
    model: torch.nn.Module, items: Sequence[Item], collator: Collator, batch_size: int, offset: int = 0
) -> list[list[float]]:
    """Summed log-probability of every sequence of every item under `model` as it is now, dropout off."""
    from dataclasses import replace

    model.eval()
    everything = Collator(
        replace(collator.objective, quiet=(), reads=frozenset()),
        tokens_per_pass=collator.tokens_per_pass,
        pack=collator.pack,
        pad=collator.pad,
    )
    scores: list[list[float]] = []
    for group in in_batches([replace(item, reference=()) for item in items], batch_size):
        for one in everything(group)["passes"]:
            laid = one["live"]
            sums = per_sequence(token_logps(model, laid, offset), laid)
            scores += sums.view(-1, collator.objective.sequences).tolist()
    return scores
