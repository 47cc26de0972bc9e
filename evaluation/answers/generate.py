"""Generate one version's answers to all items: greedy, in fixed batches, so a resumed run makes the same batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.answers.entries import AnswerEntry, AnswerKind
from evaluation.job.journal import Journal

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem
    from training.generation.generator import Generator

Messages = list[dict[str, str]]
Frame = Callable[[Messages], Messages]

_BATCHES_A_PIECE = 4
"""Batches done between two writes to the journal: what a kill can cost."""


def unchanged(messages: Messages) -> Messages:
    """Leave the messages as they are."""
    return messages


@dataclass(frozen=True)
class Answering:
    """How versions are asked, the same for all of them, and where their answers are kept."""

    generator: Generator
    """With the version attached."""
    journal: Journal
    """Answers that are there already are not made again."""
    batch_size: int
    """Items answered at once."""
    max_new_tokens: int
    """Longest answer."""
    on_done: Callable[[int], None] = lambda count: None
    """Gets how many items were finished since the last call."""

    def answer(
        self,
        kind: AnswerKind,
        version: str,
        items: Sequence[GateItem],
        *,
        adapter: str | None,
        frame: Frame = unchanged,
    ) -> None:
        """Append an entry of `kind` for each item.

        Args:
            items: of those that the base's template renders (`evaluation.run.questions`).
            adapter: name under which the version is attached; None for the base.
            frame: what is made of each item's messages before they are asked, such as examples put before them.
        """
        questions = [_Question.of(item, frame, self.generator) for item in items]
        questions.sort(key=lambda question: (len(question.prompt), question.item.item_id))
        size = self.batch_size * _BATCHES_A_PIECE
        for start in range(0, len(questions), size):
            piece = questions[start : start + size]
            if all(self.journal.get(kind, version, question.item.item_id) is not None for question in piece):
                self.on_done(len(piece))
                continue
            self.journal.append(kind, [((version, name), entry) for name, entry in self._answers(piece, adapter)])

    def _answers(self, piece: Sequence[_Question], adapter: str | None) -> list[tuple[str, AnswerEntry]]:
        from training.generation.generator import Request

        # What does not fit the context gets no answer from anybody: the same for every version.
        fitting = [question for question in piece if len(question.prompt) < self.generator.context_length]
        # The reference is scored in the pass that reads the prompt, so the prompt is computed once for both.
        requests = [
            Request(
                prompt_ids=question.prompt,
                request_id=question.item.item_id,
                adapter=adapter,
                max_tokens=self.max_new_tokens,
                score_ids=question.reference_ids(self.generator),
            )
            for question in fitting
        ]
        began = time.monotonic()
        completions = self.generator.generate(
            requests, max_size=self.batch_size, on_done=lambda completion: self.on_done(1)
        )
        seconds = (time.monotonic() - began) / max(1, len(fitting))
        result = [
            (
                question.item.item_id,
                AnswerEntry(
                    answer=completion.text,
                    answer_tokens=completion.completion_tokens,
                    truncated=completion.finish_reason == "length",
                    seconds=seconds,
                    reference_logprobs=tuple(round(value, 6) for value in completion.scored),
                ),
            )
            for question, completion in zip(fitting, completions, strict=True)
        ]
        empty = AnswerEntry(answer="", answer_tokens=0, truncated=True, seconds=0.0, reference_logprobs=())
        for question in piece:
            if len(question.prompt) >= self.generator.context_length:
                result.append((question.item.item_id, empty))
                self.on_done(1)
        return result


@dataclass(frozen=True)
class _Question:
    """One item as a version is asked it."""

    item: GateItem
    messages: Messages
    prompt: tuple[int, ...]
    """Tokens of the messages, up to where the answer begins."""

    @staticmethod
    def of(item: GateItem, frame: Frame, generator: Generator) -> _Question:
        messages = frame(messages_of(item))
        return _Question(item, messages, generator.encode_chat(messages))

    def reference_ids(self, generator: Generator) -> tuple[int, ...]:
        """Tokens of the reference after the prompt, up to its end of turn or the context's end."""
        reference, prompt = self.item.reference, self.prompt
        whole = generator.encode_chat(
            [*self.messages, {"role": "assistant", "content": reference}], add_generation_prompt=False
        )
        if whole[: len(prompt)] != prompt:  # a template that renders a past turn otherwise than a coming one
            whole = (*prompt, *generator.encode(reference))
        whole = whole[: generator.context_length]
        for index in range(len(whole) - 1, len(prompt), -1):
            if whole[index] in generator.end_tokens:
                return whole[len(prompt) : index + 1]
        return whole[len(prompt) :]


def messages_of(item: GateItem) -> Messages:
    """Convert an item's prompt to chat messages."""
    return [{"role": message.role, "content": message.content} for message in item.messages]
