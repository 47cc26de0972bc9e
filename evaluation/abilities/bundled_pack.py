"""Base abilities: a bundled offline pack scored by likelihood, and any lm-eval task by name.

Every version scores the same documents, and each document's score is kept, so that versions are compared in pairs: with
the champion, and with the untouched base. Questions with choices are scored as lm-eval scores them (the most likely
choice counts; a test holds the two equal), but the question is computed once for all its choices and lm-eval, which
takes ten seconds to import, is not needed. Passages are held-out text: their loss moves before any answer turns wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.generation.generator import Generator

PACK = Path(__file__).parent / "regression_pack"
"""One JSONL file an ability: {"id", "question", "choices", "answer": index of the right one}, or {"id", "text"}."""
ACCURACY, PROBABILITY, LOSS = "regression_accuracy", "regression_probability", "regression_loss"
FIELDS = {ACCURACY: "accuracy", PROBABILITY: "probability", LOSS: "loss"}
"""Metric -> the field of a score that gives it."""
PASSAGES = "text"
"""The pack's file of passages."""


@dataclass(frozen=True)
class RegressionScore:
    """One document's scores; None where a measure does not apply."""

    item_id: str
    task: str
    accuracy: float | None = None
    """1 when the right choice is the most likely one."""
    probability: float | None = None
    """Share of the choices' probability that is on the right one: finer than right or wrong."""
    loss: float | None = None
    """Nats per token of a passage."""


def pack_tasks() -> list[str]:
    """Abilities in the bundled pack, passages included."""
    return sorted(file.stem for file in PACK.glob("*.jsonl"))


def pack_documents(task: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The documents of one ability, the first `limit` of them."""
    lines = (PACK / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:limit]]


def measure_again(
    generator: Generator, adapter: str | None, count: int, limit: int | None = None
) -> list[RegressionScore]:
    """The bundled pack's scores of some `count` documents of every ability alike, once more in batches of another make.

    The same weights on the same documents: what differs from `measure` is the instrument's doing.
    """
    scores = []
    for task in pack_tasks():
        documents = pack_documents(task, limit)
        step = max(1, len(documents) * len(pack_tasks()) // max(1, count))
        scores += score_ability(generator, adapter, task, documents[::step][::-1])
    return sorted(scores, key=lambda score: score.item_id)


def choice_tokens(generator: Generator, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(beginning, continuation) in tokens: tokenised as one text, parted where the context's own tokens end."""
    whole = generator.encode(context + continuation)
    start = min(max(len(generator.encode(context.rstrip())), 1), len(whole) - 1)
    return whole[:start], whole[start:]


def choice_score(task: str, name: str, likelihoods: Sequence[float], right: int) -> RegressionScore:
    """A question's scores from the log-likelihood of each of its choices."""
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    return RegressionScore(
        item_id=f"{task}:{name}",
        task=task,
        accuracy=float(likelihoods.index(top) == right),
        probability=round(weights[right] / math.fsum(weights), 6),
    )


def score_ability(
    generator: Generator, adapter: str | None, task: str, documents: Sequence[dict[str, Any]]
) -> list[RegressionScore]:
    """Scores of some documents of one ability."""
    return (_passages if task == PASSAGES else _choices)(generator, adapter, task, documents)


def _choices(
    generator: Generator, adapter: str | None, task: str, documents: Sequence[dict[str, Any]]
) -> list[RegressionScore]:
    asked = [choice_tokens(generator, d["question"], f" {choice}") for d in documents for choice in d["choices"]]
    sums = [math.fsum(score.logprob for score in scores) for scores in generator.continuations(adapter, asked)]
    scores = []
    for document in documents:
        count = len(document["choices"])
        scores.append(choice_score(task, document["id"], sums[:count], document["answer"]))
        sums = sums[count:]
    return scores


def _passages(
    generator: Generator, adapter: str | None, task: str, documents: Sequence[dict[str, Any]]
) -> list[RegressionScore]:
    values = generator.logprobs(adapter, [generator.encode(document["text"]) for document in documents])
    return [
        RegressionScore(item_id=f"{task}:{d['id']}", task=task, loss=round(-math.fsum(found) / len(found), 6))
        for d, found in zip(documents, values, strict=True)
    ]
