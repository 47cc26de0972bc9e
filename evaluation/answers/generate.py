"""One version answers all items: greedy, in fixed batches, so that a resumed run makes the same batches again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.job.journal import Row, Rows
from evaluation.metrics.metric import Answered

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem
    from training.generation.generator import Generator

Messages = list[dict[str, str]]
Frame = Callable[[Messages], Messages]

_BATCHES_A_PIECE = 4
"""Batches done between two writes to the log: what a kill can cost."""


def as_it_is(messages: Messages) -> Messages:
    """The messages as they stand."""
    return messages


def answered(item: GateItem, row: Row, unsafe: Row | None = None) -> Answered:
    """What metrics see of one row, and of the safety classifier's."""
    return Answered(
        reference=item.reference,
        answer=row["answer"],
        grader=item.grader,
        reference_logprobs=tuple(row["reference_logprobs"]),
        answer_tokens=row["answer_tokens"],
        truncated=row["truncated"],
        unsafe=None if unsafe is None else unsafe["value"],
    )


def answer_items(
    generator: Generator,
    adapter: str | None,
    items: Sequence[GateItem],
    rows: Rows,
    key: tuple[str, ...],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_done: Callable[[int], None],
    frame: Frame = as_it_is,
) -> None:
    """Append one row per item under `key` + item id: answer, its tokens, log-probabilities of the reference, seconds.

    Args:
        generator: with the version attached as `adapter` (None: the base).
        items: of those that the base's template renders (`evaluation.run.questions`).
        on_done: told how many items were finished since the last call.
        frame: what is made of each item's messages before they are asked, such as examples put before them.
    """
    asked = {item.item_id: frame(messages_of(item)) for item in items}
    prompts = {item_id: generator.encode_chat(messages) for item_id, messages in asked.items()}
    ordered = sorted(items, key=lambda item: (len(prompts[item.item_id]), item.item_id))
    for piece in _pieces(ordered, batch_size * _BATCHES_A_PIECE):
        if all(rows.get(*key, item.item_id) is not None for item in piece):
            on_done(len(piece))
            continue
        done = _answer_piece(generator, adapter, piece, asked, prompts, batch_size, max_new_tokens, on_done)
        rows.append([((*key, item_id), row) for item_id, row in done])


def _answer_piece(
    generator: Generator,
    adapter: str | None,
    piece: Sequence[GateItem],
    asked: Mapping[str, Messages],
    prompts: Mapping[str, tuple[int, ...]],
    batch_size: int,
    max_new_tokens: int,
    on_done: Callable[[int], None],
) -> list[tuple[str, Row]]:
    from training.generation.generator import Request

    # What does not fit the context gets no answer from anybody: the same for every version.
    fitting = [item for item in piece if len(prompts[item.item_id]) < generator.context_length]
    # The reference is scored in the pass that reads the prompt, so the prompt is computed once for both.
    requests = [
        Request(
            prompt_ids=prompts[item.item_id],
            request_id=item.item_id,
            adapter=adapter,
            max_tokens=max_new_tokens,
            score_ids=_reference(generator, item, asked[item.item_id], prompts[item.item_id]),
        )
        for item in fitting
    ]
    began = time.monotonic()
    completions = generator.generate(requests, max_size=batch_size, on_done=lambda completion: on_done(1))
    seconds = (time.monotonic() - began) / max(1, len(fitting))
    result: list[tuple[str, Row]] = []
    for item, completion in zip(fitting, completions, strict=True):
        result.append(
            (
                item.item_id,
                {
                    "answer": completion.text,
                    "answer_tokens": completion.completion_tokens,
                    "truncated": completion.finish_reason == "length",
                    "seconds": seconds,
                    "reference_logprobs": [round(value, 6) for value in completion.scored],
                },
            )
        )
    for item in piece:
        if len(prompts[item.item_id]) >= generator.context_length:
            empty = {"answer": "", "answer_tokens": 0, "truncated": True, "seconds": 0.0, "reference_logprobs": []}
            result.append((item.item_id, empty))
            on_done(1)
    return result


def _reference(generator: Generator, item: GateItem, asked: Messages, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens of the reference after the prompt, up to its end of turn or the context's end."""
    whole = generator.encode_chat(
        [*asked, {"role": "assistant", "content": item.reference}], add_generation_prompt=False
    )
    if whole[: len(prompt)] != prompt:  # a template that renders a past turn otherwise than a coming one
        whole = (*prompt, *generator.encode(item.reference))
    whole = whole[: generator.context_length]
    for index in range(len(whole) - 1, len(prompt), -1):
        if whole[index] in generator.end_tokens:
            return whole[len(prompt) : index + 1]
    return whole[len(prompt) :]


def messages_of(item: GateItem) -> Messages:
    """An item's prompt as it is asked."""
    return [{"role": message.role, "content": message.content} for message in item.messages]


def _pieces(items: Sequence[GateItem], size: int) -> Iterator[Sequence[GateItem]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
