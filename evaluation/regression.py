"""Base abilities by lm-eval: a bundled offline pack of multiple-choice tasks, and any lm-eval task by name.

Every version answers the same documents by log-likelihood, and each document's score is kept, so that versions are
compared in pairs: with the champion, and with the untouched base. Importing lm-eval takes about ten seconds, so it is
imported in the evaluation process only, when a version is measured.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import UserError

if TYPE_CHECKING:
    from training.generation import Generator

PACK = Path(__file__).parent / "regression_pack"
"""One JSONL file per ability: {"id", "question", "choices", "answer": index of the right one}."""
ACCURACY, PROBABILITY = "regression_accuracy", "regression_probability"


@dataclass(frozen=True)
class RegressionScore:
    """One document's scores."""

    item_id: str
    task: str
    accuracy: float
    """1 when the right choice is the most likely one."""
    probability: float
    """Share of the choices' probability that is on the right one: finer than right or wrong."""


def pack_tasks() -> list[str]:
    """Abilities in the bundled pack."""
    return sorted(file.stem for file in PACK.glob("*.jsonl"))


def measure(
    generator: Generator, adapter: str | None, *, tasks: Sequence[str] = (), limit: int | None = None, scratch: Path
) -> list[RegressionScore]:
    """Scores of every document of the pack and of further lm-eval `tasks`, sorted by item id.

    Args:
        generator: with the version attached.
        adapter: name it is attached under; None for the base.
        tasks: further lm-eval tasks by name, multiple choice.
        limit: at most so many documents a task.
        scratch: folder for the datasets' cache.

    Raises:
        UserError: a task is not known to lm-eval, or is no multiple choice.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_defaults=bool(tasks))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise UserError(f"lm-eval knows no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    results = lm_eval.simple_evaluate(
        model=_adapter_class()(generator, adapter),
        tasks=[*(_task(name, scratch) for name in pack_tasks()), *tasks],
        task_manager=manager,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    scores = []
    for task, samples in results["samples"].items():
        for sample in samples:
            scores.append(_score(task.removeprefix("ratchet_"), sample))
    return sorted(scores, key=lambda score: score.item_id)


def _task(name: str, scratch: Path) -> dict[str, Any]:
    return {
        "task": f"ratchet_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(PACK / f"{name}.jsonl")}, "cache_dir": str(scratch)},
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
    target = sample["target"]
    right = int(target) if str(target).lstrip("-").isdigit() else likelihoods.index(max(likelihoods))
    top = max(likelihoods)
    weights = [math.exp(value - top) for value in likelihoods]
    name = sample["doc"].get("id") or f"{task}-{int(sample['doc_id']):05d}"
    return RegressionScore(
        item_id=f"{task}:{name}",
        task=task,
        accuracy=float(sample["acc"]),
        probability=round(weights[right] / math.fsum(weights), 6) if right < len(weights) else 0.0,
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
            sequences, starts = [], []
            for request in requests:
                context, continuation = request.args
                # Tokenised as one text; the continuation begins where the context's own tokens end.
                whole = list(self._generator.encode(context + continuation))
                start = len(self._generator.encode(context.rstrip()))
                sequences.append(whole)
                starts.append(min(max(start, 1), len(whole) - 1))
            by_length = sorted(range(len(sequences)), key=lambda index: (len(sequences[index]), index))
            values = self._generator.logprobs(self._adapter, [sequences[index] for index in by_length])
            result: list[tuple[float, bool]] = [(0.0, False)] * len(sequences)
            for index, logprobs in zip(by_length, values, strict=True):
                result[index] = (math.fsum(logprobs[starts[index] - 1 :]), False)
            return result

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            sequences = [list(self._generator.encode(request.args[0])) for request in requests]
            return [math.fsum(values) for values in self._generator.logprobs(self._adapter, sequences)]

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            raise UserError("regression tasks are scored by log-likelihood; name no generating task")

    return GeneratorModel
