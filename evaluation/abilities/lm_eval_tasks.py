"""Score lm-eval tasks with our generator, document by document. Importing lm-eval takes ten seconds."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.abilities.bundled_pack import PACK, RegressionScore, choice_score, choice_tokens
from infra.errors import UserError

if TYPE_CHECKING:
    from training.generation.generator import Generator, Request


def measure_tasks(
    generator: Generator,
    adapter: str | None,
    *,
    tasks: Sequence[str | dict[str, Any]],
    limit: int | None,
    scratch: Path,
) -> list[RegressionScore]:
    """Score lm-eval tasks: names, or task definitions such as `pack_definition` gives.

    Raises:
        UserError: a task is not known to lm-eval, or gives its documents no score that can be compared in pairs.
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
    scores = []
    for task, samples in results["samples"].items():
        kind = str(results["configs"][task].get("output_type"))
        more_is_better = {name for name, yes in results["higher_is_better"][task].items() if yes}
        # A task may read its answers in several ways, one sample each; its first is the one its authors list first.
        first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
        scores += [_score(generator, task, kind, more_is_better, sample) for sample in first]
    return scores


def pack_definition(task: str, scratch: Path) -> dict[str, Any]:
    """Define an ability of the bundled pack as lm-eval would be given it."""
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


def _score(
    generator: Generator, task: str, kind: str, more_is_better: Collection[str], sample: dict[str, Any]
) -> RegressionScore:
    replies = sample["filtered_resps"]
    given = sample["doc"].get("id") if isinstance(sample["doc"], dict) else None
    name = given or f"{task}-{int(sample['doc_id']):05d}"
    item_id = f"{task}:{name}"
    if kind == "loglikelihood_rolling" and replies:  # a passage: the likelihood of the whole text, in nats
        tokens = max(1, len(generator.encode(str(sample["arguments"][0][0]))))
        return RegressionScore(item_id=item_id, task=task, loss=round(-float(replies[0]) / tokens, 6))
    right = _share(sample, more_is_better)
    if right is None:
        raise UserError(
            f"lm-eval task {task} ({kind}) scores its documents by {', '.join(sample['metrics']) or 'nothing'}; "
            "expected a share of 0 to 1 where more is better, such as acc or exact_match, or a text's likelihood; name "
            "another"
        )
    if kind != "multiple_choice":  # an answer, or one text: right is what greedy decoding says
        return RegressionScore(item_id=item_id, task=task, accuracy=right)
    likelihoods = [float(reply[0]) for reply in replies]
    target = sample["target"]
    best = int(target) if str(target).lstrip("-").isdigit() else likelihoods.index(max(likelihoods))
    scored = choice_score(task, name, likelihoods, best if best < len(likelihoods) else 0)
    return RegressionScore(item_id=item_id, task=task, accuracy=right, probability=scored.probability)


def _share(sample: dict[str, Any], more_is_better: Collection[str]) -> float | None:
    """The document's first metric that is a share where more is better; a harness's own order puts the chief first."""
    for name in ("acc", *sample["metrics"]):
        value = sample.get(name)
        if name in more_is_better and isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
    return None


def _adapter_class() -> Any:
    """lm-eval's interface over our generator; made here because lm-eval is imported late."""
    from lm_eval.api.model import LM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class GeneratorModel(LM):  # type: ignore[misc]
        """Answers lm-eval's requests with one attached version."""

        def __init__(self, generator: Generator, adapter: str | None) -> None:
            super().__init__()
            self._generator = generator
            self._adapter = adapter

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = [choice_tokens(self._generator, *request.args) for request in requests]
            scored = self._generator.continuations(self._adapter, pairs)
            return [(math.fsum(s.logprob for s in scores), all(s.greedy for s in scores)) for scores in scored]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            return [self._whole_text(request.args[0]) for request in requests]

        def _whole_text(self, text: str) -> float:
            """Nats of a text of any length: each token once, in windows as long as the model's context."""
            windows = get_rolling_token_windows(
                list(self._generator.encode(text)),
                prefix_token=min(self._generator.end_tokens),
                max_seq_len=self._generator.context_length - 1,
                context_len=1,
            )
            pairs = [(tuple(context), tuple(rest)) for context, rest in map(make_disjoint_window, windows)]
            scored = self._generator.continuations(self._adapter, pairs)
            return math.fsum(score.logprob for scores in scored for score in scores)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            own = [_request(self._generator, self._adapter, *request.args) for request in requests]
            return [completion.text for completion in self._generator.generate(own)]

    return GeneratorModel


def _request(generator: Generator, adapter: str | None, context: str, settings: dict[str, Any]) -> Request:
    """A generating task's request: lm-eval's settings by their names, a context too long cut on its left."""
    from lm_eval.models.utils import normalize_gen_kwargs

    from training.generation.generator import Request

    kwargs = normalize_gen_kwargs(settings, default_max_gen_toks=256)
    most = min(int(kwargs["max_gen_toks"]), generator.context_length // 2)
    prompt = generator.encode(context)[-(generator.context_length - most) :]
    return Request(
        prompt_ids=prompt,
        adapter=adapter,
        max_tokens=most,
        stop=tuple(text for text in kwargs["until"] if text),
        temperature=float(kwargs.get("temperature") or 0.0) if kwargs.get("do_sample") else 0.0,
        top_p=float(kwargs.get("top_p") or 1.0),
        seed=0,
    )
