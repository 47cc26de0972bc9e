"""Score the bundled capability regression suite (base abilities) by likelihood, offline.

Every version scores the same documents, and each document's score is kept, so that versions are compared in pairs: with
the champion, and with the untouched base. Questions with choices are scored as lm-eval scores them (the most likely
choice counts; a test holds the two equal), but the question is computed once for all its choices and lm-eval, which
takes ten seconds to import, is not needed. Passages are held-out text: their loss moves before any answer turns wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.settings import Config
from infra.stored_model import Stored

if TYPE_CHECKING:
    from training.generation.generator import Generator

PACK = Path(__file__).parent / "regression_pack"
"""One JSONL file an ability: {"id", "question", "choices", "answer": index of the right one}, or {"id", "text"}."""
ACCURACY, PROBABILITY, LOSS = "regression_accuracy", "regression_probability", "regression_loss"
PASSAGES = "text"
"""The pack's file of passages."""


class ChoiceQuestion(Config):
    """A question with choices, one of which is right."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


class Passage(Config):
    """A held-out text."""

    id: str
    text: str


class RegressionScore(Stored):
    """One document's scores; None where a measure does not apply."""

    item_id: str
    """Task and document."""
    task: str
    """The ability, or lm-eval's task."""
    accuracy: float | None = None
    """1 when the right choice is the most likely one."""
    probability: float | None = None
    """Share of the choices' probability that is on the right one: finer than right or wrong."""
    loss: float | None = None
    """Nats per token of a passage."""

    def value(self, metric: str) -> float | None:
        """The score that the regression metric called `metric` is made of."""
        return {ACCURACY: self.accuracy, PROBABILITY: self.probability, LOSS: self.loss}[metric]


def pack_tasks() -> list[str]:
    """List the abilities in the bundled pack, passages included."""
    return sorted(file.stem for file in PACK.glob("*.jsonl"))


def pack_documents(task: str, limit: int | None = None) -> list[ChoiceQuestion] | list[Passage]:
    """Read the documents of one ability, the first `limit` of them."""
    lines = (PACK / f"{task}.jsonl").read_text().splitlines()[:limit]
    if task == PASSAGES:
        return [Passage.model_validate_json(line) for line in lines]
    return [ChoiceQuestion.model_validate_json(line) for line in lines]


def measure_again(
    generator: Generator, adapter: str | None, count: int, limit: int | None = None
) -> list[RegressionScore]:
    """Score some `count` documents of the pack, of every ability alike, once more in batches of another make.

    The same weights on the same documents: what differs from `measure` is the instrument's doing.
    """
    scores = []
    for task in pack_tasks():
        documents = pack_documents(task, limit)
        step = max(1, len(documents) * len(pack_tasks()) // max(1, count))
        scores += score_ability(generator, adapter, task, documents[::step][::-1])
    return sorted(scores, key=lambda score: score.item_id)


def choice_tokens(generator: Generator, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokenise a context and its continuation as one text, parted where the context's own tokens end."""
    whole = generator.encode(context + continuation)
    start = min(max(len(generator.encode(context.rstrip())), 1), len(whole) - 1)
    return whole[:start], whole[start:]


def choice_score(task: str, name: str, likelihoods: Sequence[float], right: int) -> RegressionScore:
    """Score a question from the log-likelihood of each of its choices."""
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    return RegressionScore(
        item_id=f"{task}:{name}",
        task=task,
        accuracy=float(likelihoods.index(top) == right),
        probability=round(weights[right] / math.fsum(weights), 6),
    )


def score_ability(
    generator: Generator, adapter: str | None, task: str, documents: Sequence[ChoiceQuestion | Passage]
) -> list[RegressionScore]:
    """Score some documents of one ability."""
    questions = [document for document in documents if isinstance(document, ChoiceQuestion)]
    passages = [document for document in documents if isinstance(document, Passage)]
    scores = _score_questions(generator, adapter, task, questions) if questions else []
    return scores + _score_passages(generator, adapter, task, passages) if passages else scores


def _score_questions(
    generator: Generator, adapter: str | None, task: str, questions: Sequence[ChoiceQuestion]
) -> list[RegressionScore]:
    continuations = [choice_tokens(generator, q.question, f" {choice}") for q in questions for choice in q.choices]
    sums = [math.fsum(s.logprob for s in scores) for scores in generator.continuations(adapter, continuations)]
    scores = []
    for question in questions:
        count = len(question.choices)
        scores.append(choice_score(task, question.id, sums[:count], question.answer))
        sums = sums[count:]
    return scores


def _score_passages(
    generator: Generator, adapter: str | None, task: str, passages: Sequence[Passage]
) -> list[RegressionScore]:
    values = generator.logprobs(adapter, [generator.encode(passage.text) for passage in passages])
    return [
        RegressionScore(item_id=f"{task}:{p.id}", task=task, loss=round(-math.fsum(logprobs) / len(logprobs), 6))
        for p, logprobs in zip(passages, values, strict=True)
    ]
