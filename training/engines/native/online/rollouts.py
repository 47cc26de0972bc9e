"""Collect rollouts: answers of the model that is being trained, sampled, graded and scored.

For the objectives that learn from their own answers. Draws are seeded by stage, step, prompt and sample, so a resumed
stage draws what an undisturbed one draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.chat.template import Tokens
from training.engines.native.online.policy_sampler import PolicySampler
from training.engines.native.online.policy_scorer import PolicyScorer
from training.engines.native.packing.items import Item
from training.graders.grading import Grading

if TYPE_CHECKING:
    from training.engines.native.online.reward_model import RewardModel


@dataclass(frozen=True)
class Answer:
    """One answer of the model."""

    ids: tuple[int, ...]
    """Its tokens, the end of turn included if it got there."""
    text: str
    """The same as text."""
    finished: bool
    """Whether it ended by itself, not by the limit of tokens."""


class Rollouts:
    """Sampling, grading and scoring for one stage.

    Args:
        seed: the stage's.
        grading: graders, where there is no reward model.
        reward: the recipe's reward model, if any.
        cache: where answers of endpoints are kept.
        teacher: folder of another local model that teaches.
    """

    def __init__(
        self,
        sampler: PolicySampler,
        scorer: PolicyScorer,
        *,
        seed: int,
        grading: Grading,
        reward: RewardModel | None,
        cache: Path,
        teacher: Path | None,
    ) -> None:
        self.sampler, self.scorer, self.seed = sampler, scorer, seed
        self.grading, self.reward, self.cache, self.teacher = grading, reward, cache, teacher
        self.report: dict[str, float] = {}
        self._step: int | None = None

    def begin(self, step: int | None) -> None:
        """Begin a collection for optimizer step `step`; None for held-out prompts, which are answered greedily."""
        self._step = step
        self.report = {}
        self.sampler.detach()

    def sample(self, items: Sequence[Item], count: int, max_new_tokens: int) -> list[list[Answer]]:
        """Sample `count` answers to each prompt by the weights of the moment; one greedy answer each when held out.

        Raises:
            UserError: the generator cannot serve this tuner's weights.
        """
        from training.generation.requests import Request

        greedy = self._step is None
        requests = [
            Request(
                prompt_ids=item.sequences[0].ids,
                adapter=self.sampler.attached(),
                max_tokens=max_new_tokens,
                temperature=0.0 if greedy else 1.0,
                seed=None if greedy else self._draw(place, sample),
            )
            for place, item in enumerate(items)
            for sample in range(1 if greedy else count)
        ]
        done = self.sampler.generate(requests)
        each = [Answer(c.token_ids, c.text, c.finish_reason == "stop") for c in done]
        size = 1 if greedy else count
        self.note("answer_tokens", [float(len(a.ids)) for a in each])
        self.note("unfinished", [float(not a.finished) for a in each])
        return [each[i * size : (i + 1) * size] for i in range(len(items))]

    def teach(self, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[tuple[int, ...]]:
        """Answer greedily by the teacher, or by the weights of the moment where there is no other teacher."""
        from training.generation.generator import Generator, Request

        if self.teacher is None:
            name, generator = self.sampler.attached(), self.sampler.generator
        else:
            name, generator = None, Generator(self.teacher, dtype=self.sampler.dtype)
        requests = [Request(prompt_ids=ids, adapter=name, max_tokens=max_new_tokens) for ids in prompts]
        return [done.token_ids for done in generator.generate(requests)]

    def ids_of(self, text: str, *, ended: bool = True) -> tuple[int, ...]:
        """Tokenise an answer for the student, with the end of turn if it `ended`; nothing for an empty text."""
        if not text.strip():
            return ()
        chat = self.sampler.generator.chat
        ids = chat.encode(text)
        return (*ids, chat.end_of_turn) if ended else ids

    def grade(self, items: Sequence[Item], answers: Sequence[Sequence[Answer]]) -> list[list[float]]:
        """Grade every answer: by the recipe's reward model, else by graders.

        Raises:
            UserError: no answer could be graded.
        """
        flat = [(item, answer) for item, group in zip(items, answers, strict=True) for answer in group]
        if self.reward is not None:
            grades = self.reward.score([(*item.sequences[0].ids, *answer.ids) for item, answer in flat])
        else:
            failed = self.grading.failures
            grades = self.grading.grade([(answer.text, item.note) for item, answer in flat])
            self.note("grader_failures", [float(self.grading.failures - failed)])
        self.note("reward", grades)
        made, at = [], 0
        for group in answers:
            made.append(grades[at : at + len(group)])
            at += len(group)
        return made

    def whole(self, item: Item, answer: Answer, **columns: Sequence[float]) -> Item:
        """Make one item of prompt and answer, with loss on the answer."""
        prompt = item.sequences[0].ids
        tokens = Tokens((*prompt, *answer.ids), (*([False] * len(prompt)), *([True] * len(answer.ids))))
        return replace(item, sequences=(tokens,), columns={name: tuple(v) for name, v in columns.items()})

    def note(self, name: str, values: Sequence[float]) -> None:
        """Report the mean of `values` on this step's line of progress."""
        if values:
            self.report[name] = sum(values) / len(values)

    def close(self) -> None:
        """End graders and give the generator's memory back."""
        self.sampler.close()
        self.grading.close()

    def _draw(self, place: int, sample: int) -> int:
        step = self._step
        assert step is not None
        return int(np.random.SeedSequence([self.seed, step, place, sample]).generate_state(1)[0])
