"""Measure the few-shot prompt baseline: a prompt chosen on items that people may see, then measured like a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.answers.entries import ANSWERS, EXAMPLE_ANSWERS, PROMPT_TRIALS, AnswerKind, metric_input
from evaluation.answers.few_shot_prompts import Prompt, best_prompt, make_prompts
from evaluation.answers.generate import Answering
from evaluation.job.config import Candidate, EvaluationJob
from evaluation.job.journal import Journal
from evaluation.metrics import find_metric
from infra.artifact import atomic_write, key_of

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem


def candidate_prompts(job: EvaluationJob, trial_items: Sequence[GateItem]) -> tuple[Prompt, ...]:
    """Make the prompts to try; none where there is nothing to make them of or to choose them by."""
    if not job.config.prompt_candidates or not job.training_files or not trial_items:
        return ()
    return make_prompts(job.training_files, count=job.config.prompt_candidates, seed=job.seed)


@dataclass(frozen=True)
class PromptBaseline:
    """The untouched base, asked with the best of a few prompts."""

    job: EvaluationJob
    prompts: Sequence[Prompt]
    """Candidates; at least one."""
    journal: Journal
    answering: Callable[[], Answering]
    """Gives the base, ready to answer; called only when something is left to answer."""

    def measure(
        self, items: Sequence[GateItem], trial_items: Sequence[GateItem], examples: Sequence[GateItem]
    ) -> Candidate:
        """Try the prompts on `trial_items`, let the best answer the gate's items and the report's examples."""
        best = self._best(trial_items)
        self._answer(ANSWERS, best, items)
        self._answer(EXAMPLE_ANSWERS, best, examples)
        atomic_write(self.job.output_dir / "prompt.json", best.model_dump_json(indent=1) + "\n")
        return Candidate(
            version=best.version,
            label=f"words alone: {best.name}",
            kind="prompt",
            digest=key_of(best),
            reference_only=True,
        )

    def _best(self, trial_items: Sequence[GateItem]) -> Prompt:
        if len(self.prompts) == 1:
            return self.prompts[0]
        metric = find_metric(self.job.prompt_metric)
        scores: dict[str, list[float | None]] = {}
        for prompt in self.prompts:
            self._answer(PROMPT_TRIALS, prompt, trial_items)
            trials = ((item, self.journal.get(PROMPT_TRIALS, prompt.version, item.item_id)) for item in trial_items)
            scores[prompt.version] = [metric.score(metric_input(item, entry)) for item, entry in trials if entry]
        return best_prompt(self.prompts, scores, metric.direction)

    def _answer(self, kind: AnswerKind, prompt: Prompt, items: Sequence[GateItem]) -> None:
        if not all(self.journal.get(kind, prompt.version, item.item_id) for item in items):
            self.answering().answer(kind, prompt.version, items, adapter=None, frame=prompt.frame)
