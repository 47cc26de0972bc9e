"""Define the journal entries of a version's answers, of what is proved and classified of them, and metrics' input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from evaluation.job.journal import EntryKind
from evaluation.metrics.metric import MetricInput
from infra.stored_model import Stored

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem


class AnswerEntry(Stored):
    """One version's answer to one item."""

    answer: str
    """What it said (greedy)."""
    answer_tokens: int
    """Tokens of the answer, end of turn included."""
    truncated: bool
    """Whether the answer ran into the length limit."""
    seconds: float
    """Its share of the time that its batches took."""
    reference_logprobs: tuple[float, ...]
    """Natural log-probability of each token of the reference."""


AnswerKind = EntryKind[AnswerEntry]
ANSWERS = AnswerKind("answer", AnswerEntry, ("version", "item_id"))
"""Answers to the gate's items."""
SECOND_ANSWERS = AnswerKind("again", AnswerEntry, ("version", "item_id"))
"""The champion's answers to some of them once more, in batches of another size."""
EXAMPLE_ANSWERS = AnswerKind("example", AnswerEntry, ("version", "item_id"))
"""Answers to the report's examples."""
PROMPT_TRIALS = AnswerKind("prompt", AnswerEntry, ("version", "item_id"))
"""The base's answers with a candidate prompt, by which the best prompt is chosen."""


class ParityEntry(Stored):
    """Whether a version's weights as loaded are those that were trained."""

    state: Literal["passed", "failed", "missing"]
    """missing: there is no probe to compare with."""
    error: float | None
    """Relative error of the adapter's effect, where it was measured."""


PARITY = EntryKind("parity", ParityEntry, ("version",))


class UnsafeEntry(Stored):
    """What the safety classifier gave one answer."""

    value: float
    """Probability of the unsafe labels."""


UNSAFE = EntryKind("unsafe", UnsafeEntry, ("version", "item_id"))


def metric_input(item: GateItem, entry: AnswerEntry, unsafe: UnsafeEntry | None = None) -> MetricInput:
    """Join what metrics score: one item, one version's answer to it, and what the safety classifier gave."""
    return MetricInput(
        reference=item.reference,
        answer=entry.answer,
        grader=item.grader,
        reference_logprobs=entry.reference_logprobs,
        answer_tokens=entry.answer_tokens,
        truncated=entry.truncated,
        unsafe=None if unsafe is None else unsafe.value,
    )
