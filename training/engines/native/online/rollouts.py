"""Answers of the model that is being trained: sampled, graded, scored. For the objectives that learn from their own.

The weights of the moment are written out and handed to the only generator (generation.py), which keeps its own copy of
the base. Draws are seeded by stage, step, prompt and sample, so a resumed stage draws what an undisturbed one draws.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from training.engines.native.packing.tokenization import Item, Tokens
from training.graders.grading import Grading
from training.weights.files import is_peft, save_weights
from training.weights.heads import Head

if TYPE_CHECKING:
    from training.engines.native.online.reward_model import RewardModel
    from training.engines.native.packing.forward import Reading
    from training.generation.generator import Generator


@dataclass(frozen=True)
class Answer:
    """One answer of the model."""

    ids: tuple[int, ...]
    """Its tokens, the end of turn included if it got there."""
    text: str
    """The same as text."""
    finished: bool
    """Whether it ended by itself, not by the limit of tokens."""


class StartingWeights:
    """What the trained weights were when the stage began: the reference of KL terms, and a teacher, without a second
    model."""

    def __init__(self, model: torch.nn.Module, head: Head | None) -> None:
        own = {id(p) for p in head.parameters()} if head is not None else set()
        self._kept = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad and id(p) not in own]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model is what it was."""
        now = [p.data for p, _ in self._kept]
        for p, start in self._kept:
            p.data = start
        try:
            yield
        finally:
            for (p, _), data in zip(self._kept, now, strict=True):
                p.data = data


class Rollouts:
    """Sampling and scoring for one stage.

    Args:
        model: what is trained; head: its value head, if any.
        starting: its weights at the start of the stage.
        read: (items, head wanted) -> readings of the passes they take, in the items' order, without gradient.
        base: folder of what stands below the adapter (or of any model of that shape, if the whole model is trained).
        folder: where weights are written for the generator; save: how they are written.
        cache: where answers of endpoints are kept; teacher: folder of another local model that teaches.
    """

    def __init__(
        self,
        *,
        model: Any,
        head: Head | None,
        starting: StartingWeights,
        read: Callable[[Sequence[Item]], Iterator[tuple[Sequence[Item], Reading]]],
        base: Path,
        dtype: str,
        folder: Path,
        seed: int,
        grading: Grading,
        reward: RewardModel | None,
        cache: Path,
        teacher: Path | None,
        save: Callable[[Any, Path], None] = save_weights,
    ) -> None:
        self.model, self.head, self.starting = model, head, starting
        self._read, self._save = read, save
        self.base, self.dtype, self.folder, self.seed = base, dtype, folder, seed
        self.grading, self.reward, self.cache, self.teacher = grading, reward, cache, teacher
        self.report: dict[str, float] = {}
        self._generator: Generator | None = None
        self._step: int | None = None
        self._attached: str | None = None
        self._count = 0

    def begin(self, step: int | None) -> None:
        """A new collection, for optimizer step `step`; None for held-out prompts, which are answered greedily."""
        self._step = step
        self.report = {}
        self._drop()

    def sample(self, items: Sequence[Item], count: int, max_new_tokens: int) -> list[list[Answer]]:
        """`count` answers to each prompt by the weights of the moment; one greedy answer each for held-out prompts.

        Raises:
            UserError: the generator cannot serve this tuner's weights.
        """
        from training.generation.generator import Request

        greedy = self._step is None
        requests = [
            Request(
                prompt_ids=item.sequences[0].ids,
                adapter=self._name(),
                max_tokens=max_new_tokens,
                temperature=0.0 if greedy else 1.0,
                seed=None if greedy else self._draw(place, sample),
            )
            for place, item in enumerate(items)
            for sample in range(1 if greedy else count)
        ]
        assert self._generator is not None or not requests
        done = self._generator.generate(requests) if self._generator is not None else []
        each = [Answer(c.token_ids, c.text, c.finish_reason == "stop") for c in done]
        size = 1 if greedy else count
        self._note("answer_tokens", [float(len(a.ids)) for a in each])
        self._note("unfinished", [float(not a.finished) for a in each])
        return [each[i * size : (i + 1) * size] for i in range(len(items))]

    def teach(self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[tuple[int, ...]]:
        """Greedy answers of the teacher, or of the weights of the moment where there is no other teacher."""
        from training.generation.generator import Generator, Request

        if self.teacher is None:
            name, generator = self._name(), self._generator
        else:
            name, generator = None, Generator(self.teacher, dtype=self.dtype)  # type: ignore[arg-type]
        assert generator is not None
        requests = [Request(prompt_ids=ids, adapter=name, max_tokens=max_new_tokens) for ids in prompts]
        return [done.token_ids for done in generator.generate(requests)]

    def ids_of(self, text: str, *, ended: bool = True) -> tuple[int, ...]:
        """An answer's text as the student's tokens, with the end of turn if it `ended`; none for an empty text."""
        self._name()
        assert self._generator is not None
        if not text.strip():
            return ()
        ids = self._generator.encode(text)
        return (*ids, self._generator.tokenizer.eos_token_id) if ended else ids

    def grade(self, items: Sequence[Item], answers: Sequence[Sequence[Answer]]) -> list[list[float]]:
        """A grade for every answer: by the recipe's reward model, else by graders.

        Raises:
            UserError: no answer could be graded.
        """
        flat = [(item, answer) for item, group in zip(items, answers, strict=True) for answer in group]
        if self.reward is not None:
            grades = self.reward.score([(*item.sequences[0].ids, *answer.ids) for item, answer in flat])
        else:
            failed = self.grading.failures
            grades = self.grading.grade([(answer.text, item.note) for item, answer in flat])
            self._note("grader_failures", [float(self.grading.failures - failed)])
        self._note("reward", grades)
        made, at = [], 0
        for group in answers:
            made.append(grades[at : at + len(group)])
            at += len(group)
        return made

    def whole(self, item: Item, answer: Answer, **columns: Sequence[float]) -> Item:
        """Prompt and answer as one item with loss on the answer."""
        prompt = item.sequences[0].ids
        tokens = Tokens((*prompt, *answer.ids), (*([False] * len(prompt)), *([True] * len(answer.ids))))
        return replace(item, sequences=(tokens,), columns={name: tuple(v) for name, v in columns.items()})

    def with_logps(self, items: Sequence[Item], *, now: bool, start: bool) -> list[Item]:
        """Items with columns `old` (log-probability of each token under the weights of the moment), `value` where there
        is a head, and `start` (under those the stage began with)."""
        made = list(items)
        if now:
            made = self._scored(made, "old", values=self.head is not None)
        if start:
            with self.starting.in_place():
                made = self._scored(made, "start", values=False)
        return made

    def note(self, name: str, values: Sequence[float]) -> None:
        """Report the mean of `values` on this step's line of progress."""
        self._note(name, values)

    @torch.no_grad()
    def _scored(self, items: Sequence[Item], name: str, *, values: bool) -> list[Item]:
        self.model.eval()
        made: list[Item] = []
        for group, reading in self._read(items):
            assert reading.logps is not None
            columns = {name: reading.logps.tolist()}
            if values:
                assert self.head is not None and reading.hidden is not None
                columns["value"] = self.head(reading.hidden).tolist()
            at = 0
            for item in group:
                count = sum(item.sequences[0].loss)
                mine = {n: tuple(column[at : at + count]) for n, column in columns.items()}
                made.append(replace(item, columns={**item.columns, **mine}))
                at += count
        return made

    def _name(self) -> str:
        """Name under which the generator knows the weights of the moment."""
        if self._attached is None:
            from training.generation.generator import Generator

            if self._generator is None:
                self._generator = Generator(self.base, dtype=self.dtype)  # type: ignore[arg-type]
            self._count += 1
            self._attached, folder = f"now-{self._count}", self.folder / f"{self._count}"
            shutil.rmtree(folder, ignore_errors=True)
            self._save(self.model, folder)
            if is_peft(self.model):
                self._generator.attach(self._attached, folder)
            else:
                self._generator.attach_model(self._attached, folder)
        return self._attached

    def _drop(self) -> None:
        if self._attached is not None and self._generator is not None:
            self._generator.detach(self._attached)
            shutil.rmtree(self.folder / f"{self._count}", ignore_errors=True)
        self._attached = None

    def close(self) -> None:
        """End graders and give the generator's memory back."""
        self._drop()
        self.grading.close()
        self._generator = None

    def _draw(self, place: int, sample: int) -> int:
        step = self._step
        assert step is not None
        return int(np.random.SeedSequence([self.seed, step, place, sample]).generate_state(1)[0])

    def _note(self, name: str, values: Sequence[float]) -> None:
        if values:
            self.report[name] = sum(values) / len(values)
