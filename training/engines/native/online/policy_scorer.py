"""Score answers token by token under the policy: its weights of the moment, and those the stage began with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from training.engines.native.packing.forward import ForwardOutput
from training.engines.native.packing.items import Item
from training.weights.heads import Head

Passes = Callable[[Sequence[Item]], Iterator[tuple[Sequence[Item], ForwardOutput]]]
"""Items -> the passes through the model that they take, in their order, without gradient."""


class StartingWeights:
    """What the trained weights were when the stage began: the reference of KL terms, and a teacher, without a second
    model."""

    def __init__(self, model: torch.nn.Module, head: Head | None) -> None:
        own = {id(p) for p in head.parameters()} if head is not None else set()
        self._kept = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad and id(p) not in own]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model be what it was, within."""
        now = [p.data for p, _ in self._kept]
        for p, start in self._kept:
            p.data = start
        try:
            yield
        finally:
            for (p, _), data in zip(self._kept, now, strict=True):
                p.data = data


class PolicyScorer:
    """Log-probabilities and values of answers' tokens.

    Args:
        model: what is trained.
        head: its value head, if any.
        starting: its weights at the start of the stage.
        passes: how items are run through the model.
    """

    def __init__(self, model: torch.nn.Module, head: Head | None, starting: StartingWeights, passes: Passes) -> None:
        self.model, self.head, self.starting, self._passes = model, head, starting, passes

    def with_logps(self, items: Sequence[Item], *, now: bool, start: bool) -> list[Item]:
        """Add columns `old` (log-probability of each token under the weights of the moment), `value` where there is a
        head, and `start` (under those the stage began with)."""
        made = list(items)
        if now:
            made = self._scored(made, "old", values=self.head is not None)
        if start:
            with self.starting.in_place():
                made = self._scored(made, "start", values=False)
        return made

    @torch.no_grad()
    def _scored(self, items: Sequence[Item], name: str, *, values: bool) -> list[Item]:
        self.model.eval()
        made: list[Item] = []
        for group, output in self._passes(items):
            assert output.logps is not None
            columns = {name: output.logps.tolist()}
            if values:
                assert self.head is not None and output.hidden is not None
                columns["value"] = self.head(output.hidden).tolist()
            at = 0
            for item in group:
                count = sum(item.sequences[0].loss)
                mine = {n: tuple(column[at : at + count]) for n, column in columns.items()}
                made.append(replace(item, columns={**item.columns, **mine}))
                at += count
        return made
