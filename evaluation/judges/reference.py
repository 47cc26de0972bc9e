"""Judge offline: the answer closer to the reference wins. For machines with no model to ask.

JSON is compared by the share of right fields, numbers by the final number, prose by word overlap (F1), which is
length-controlled: padding an answer lowers its precision. Where the reference is a schema or a pattern, an answer that
fits beats one that does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.judges.config import JudgeConfig
from evaluation.judges.judge import NightRewardModel, Pair, Tally
from evaluation.metrics import exact_match, json_fields, json_schema, numeric_answer, regex
from evaluation.metrics.metric import MetricInput
from training.graders.exact_match import normalise

_TIE = 0.02
"""Similarities closer than this are a tie: two points of overlap decide nothing."""


def similarity(answer: str, reference: str, grader: str | None = None) -> float:
    """Compute how close an answer is to the reference, 0..1; whether it fits, where that is a schema or a pattern."""
    item = MetricInput(reference=reference, answer=answer, grader=grader)
    if not item.has_answer:
        return json_schema.score(item) or regex.score(item) or 0.0
    if exact_match.score(item):
        return 1.0
    for graded in (json_fields.score(item), numeric_answer.score(item)):
        if graded is not None:
            return min(graded, 0.999)
    ours, theirs = (Counter(normalise(text).split()) for text in (answer, reference))
    common = (ours & theirs).total()
    return min(0.999, 2.0 * common / (ours.total() + theirs.total())) if common else 0.0


CONFIG = JudgeConfig


class ReferenceJudge:
    """Prefers the answer closer to the reference. Symmetric, so the order cannot matter."""

    name = "reference"
    length_controlled = False
    model_digest = ""
    needs_reference = True
    remote = False
    cost = None

    def __init__(self) -> None:
        self.tally = Tally()

    def compare(self, pairs: Sequence[Pair]) -> list[float]:
        """See `Judge.compare`; never down."""
        results = []
        for pair in pairs:
            ours, theirs = (similarity(text, pair.reference, pair.grader) for text in (pair.ours, pair.theirs))
            lead = ours - theirs
            results.append(0.5 if abs(lead) < _TIE else float(lead > 0))
        self.tally.comparisons += len(pairs)
        self.tally.ties += results.count(0.5)
        return results


def build(config: JudgeConfig, cache_dir: Path, reward_model: NightRewardModel | None) -> ReferenceJudge:
    """Build the judge; it takes no options and caches nothing."""
    return ReferenceJudge()
