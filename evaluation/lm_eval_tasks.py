"""lm-eval tasks by name, scored by our generator, with every document's score. Importing lm-eval takes ten seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.regression import PACK, RegressionScore, choice_score, choice_tokens
from infra.errors import UserError

if TYPE_CHECKING:
    from training.generation import Generator


def measure_tasks(
    generator: Generator,
    adapter: str | None,
    *,
    tasks: Sequence[str | dict[str, Any]],
    limit: int | None,
    scratch: Path,
) -> list[RegressionScore]:
    """Scores of lm-eval tasks: names, or task definitions such as `pack_definition` gives.

    Raises:
        UserError: a task is not known to lm-eval, or is no multiple choice.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    names = [task for task in tasks if isinstance(task, str)]
    manager = TaskManager(include_defaults=bool(names))
    unknown = [task for task in names if task not in manager.all_tasks]
    if unknown:
        raise UserError(f"lm-eval knows no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    results = lm_eval.simple_evaluate(
        model=_adapter_class()(generator, adapter),
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return [_score(task, sample) for task, samples in results["samples"].items() for sample in samples]


def pack_definition(task: str, scratch: Path) -> dict[str, Any]:
    """An ability of the bundled pack as lm-eval would be given it."""
    return {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(PACK / f"{task}.jsonl")}, "cache_dir": str(scratch)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _score(task: str, sample: dict[str, Any]) -> RegressionScore:
    replies = sample["filtered_resps"]
    if "acc" not in sample or not replies or not isinstance(replies[0], tuple | list):
        raise UserError(f"lm-eval task {task} is no multiple choice; name one that is scored by log-likelihood")
    likelihoods = [float(reply[0]) for reply in replies]
    name = sample["doc"].get("id") or f"{task}-{int(sample['doc_id']):05d}"
    if len(likelihoods) == 1:  # one text and no choices: right is what greedy decoding would have said
        return RegressionScore(item_id=f"{task}:{name}", task=task, accuracy=float(sample["acc"]))
    target = sample["target"]
    right = int(target) if str(target).lstrip("-").isdigit() else likelihoods.index(max(likelihoods))
    scored = choice_score(task, name, likelihoods, right if right < len(likelihoods) else 0)
    return RegressionScore(
        item_id=scored.item_id, task=task, accuracy=float(sample["acc"]), probability=scored.probability
    )


def _adapter_class() -> Any:
    """lm-eval's interface over our generator; made here because lm-eval is imported late."""
    from lm_eval.api.model import LM

    class GeneratorModel(LM):  # type: ignore[misc]
        """Answers lm-eval's requests with one attached version."""

        def __init__(self, generator: Generator, adapter: str | None) -> None:
            super().__init__()
            self._generator = generator
            self._adapter = adapter

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            asked = [choice_tokens(self._generator, *request.args) for request in requests]
            found = self._generator.likely_continuations(self._adapter, asked)
            return [(math.fsum(value for value, _ in seen), all(top for _, top in seen)) for seen in found]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            sequences = [self._generator.encode(request.args[0]) for request in requests]
            return [math.fsum(values) for values in self._generator.logprobs(self._adapter, sequences)]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            raise UserError("regression tasks are scored by log-likelihood; name no generating task")

    return GeneratorModel
