"""The night's prompt-only challenger: chosen on items that people may see, then measured like a version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from evaluation.answers.few_shot_prompts import Prompt, best_prompt, make_prompts
from evaluation.answers.generate import answer_items, answered
from evaluation.job.config import Candidate, EvaluationJob
from evaluation.job.journal import Rows
from evaluation.metrics import metric as find_metric
from infra.artifact import atomic_write, key_of

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem
    from training.generation.generator import Generator


def prompts_of(job: EvaluationJob, shown: Sequence[GateItem]) -> tuple[Prompt, ...]:
    """The prompts to try; none where there is nothing to make them of or to choose them by."""
    if not job.config.prompt_candidates or not job.training_files or not shown:
        return ()
    return make_prompts(job.training_files, count=job.config.prompt_candidates, seed=job.seed)


def measure_words_alone(
    job: EvaluationJob,
    prompts: Sequence[Prompt],
    items: Sequence[GateItem],
    shown: Sequence[GateItem],
    examples: Sequence[GateItem],
    rows: Rows,
    model: Callable[[], Generator],
    on_done: Callable[[int], None],
) -> Candidate:
    """Try the prompts on `shown`, let the best answer the gate's items and the report's examples; its candidate.

    Args:
        model: gives the generator; asked only when something is left to answer.
    """

    def answer(what: str, prompt: Prompt, which: Sequence[GateItem]) -> None:
        if all(rows.get(what, prompt.version, item.item_id) for item in which):
            return
        answer_items(
            model(),
            None,
            which,
            rows,
            (what, prompt.version),
            batch_size=job.config.batch_size,
            max_new_tokens=job.config.max_new_tokens,
            on_done=on_done,
            frame=prompt.frame,
        )

    best = prompts[0]
    if len(prompts) > 1:
        metric = find_metric(job.prompt_metric)
        scores: dict[str, list[float | None]] = {}
        for prompt in prompts:
            answer("prompt", prompt, shown)
            found = ((item, rows.get("prompt", prompt.version, item.item_id)) for item in shown)
            scores[prompt.version] = [metric.score(answered(item, row)) for item, row in found if row is not None]
        best = best_prompt(prompts, scores, metric.direction)
    answer("answer", best, items)
    answer("example", best, examples)
    atomic_write(job.output_dir / "prompt.json", best.model_dump_json(indent=1) + "\n")
    return Candidate(
        version=best.version,
        label=f"words alone: {best.name}",
        kind="prompt",
        digest=key_of(best),
        reference_only=True,
    )
