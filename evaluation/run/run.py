"""Runs one evaluation: the base is loaded once, versions answer the same items one after another, rows are durable.

A killed run goes on where it was: a piece of work is done again only when its rows were not on disk, and always in the
same batches, so the scorecard's digest is the same as without the kill.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.abilities.lm_eval_names import unknown_tasks
from evaluation.answers.few_shot_prompts import Prompt
from evaluation.answers.generate import answer_items, answered
from evaluation.answers.parity import check_parity
from evaluation.answers.prompt_baseline import measure_words_alone, prompts_of
from evaluation.job.config import Candidate, EvaluationJob, evaluation_key
from evaluation.job.items import contaminated
from evaluation.job.journal import Row, Rows
from evaluation.judges import JUDGES
from evaluation.judges.win_rates import judge_answers, matches
from evaluation.metrics import metric as find_metric
from evaluation.metrics.safety import classify_answers
from evaluation.run.build_scorecard import build_scorecard
from evaluation.run.questions import Questions, read_questions
from evaluation.scorecard import Scorecard
from infra.artifact import Record, atomic_write, digest_file, finished_record, read_record, write_record
from infra.database.connect import now
from infra.errors import RatchetError, UserError
from infra.processes.progress import FILE, ProgressWriter

if TYPE_CHECKING:
    from feedback.snapshots.gate_items import GateItem
    from training.generation.generator import Generator

log = logging.getLogger(__name__)
ANSWERS = "answers.parquet"
"""Every version's answers to the gate's items; it stays on this machine."""


def evaluate(job: EvaluationJob) -> Record:
    """Measure everything the job names and write the output folder; at once if it was finished before.

    Raises:
        UserError: items, metrics, judges or tasks are named wrongly.
        RatchetError: the base cannot be loaded. A version that cannot is reported on the scorecard instead.
    """
    from infra.processes.locks import hold

    _check_names(job)
    questions = read_questions(job.items_file, job.examples_file, job.base_path)
    prompts = tuple(p for p in prompts_of(job, _tried(job, questions)) if questions.askable(p))
    key = evaluation_key(job, questions.digest, [prompt.version for prompt in prompts])
    out = job.output_dir
    with hold(out / ".lock"):
        record = read_record(out)
        if record is not None and record.key == key:
            return record
        return _evaluate(job, questions, key, prompts, out)


def _check_names(job: EvaluationJob) -> None:
    """Names that would otherwise be looked up only after all answers are there."""
    judges = [judge.name for judge in job.config.judges if judge.name not in JUDGES]
    if judges:
        raise UserError(f"judge {judges[0]!r} is not known; use one of {', '.join(sorted(JUDGES))} (evaluation.judges)")
    tasks = unknown_tasks(job.config.regression_tasks) if job.config.regression else []
    if tasks:
        raise UserError(
            f"lm-eval knows no task {', '.join(tasks)}; `lm-eval ls tasks` lists them (evaluation.regression_tasks)"
        )


def _evaluate(job: EvaluationJob, questions: Questions, key: str, prompts: Sequence[Prompt], out: Path) -> Record:
    items = questions.items
    for aside in questions.set_aside:
        log.warning("gate item %s is set aside for all versions: %s", aside.item_id, aside.reason)
    began = time.monotonic()
    (out / "record.json").unlink(missing_ok=True)  # of another job: from here on the folder is not whole
    work = out / "work" / key[:16]
    rows = Rows(work / "rows.jsonl")
    progress = ProgressWriter(out / FILE, _amount(job, len(items), len(prompts)))
    model = _Model(job, progress)
    errors = _answers(job, questions, rows, work, progress, model) if items else {}
    if items and prompts and job.base.version not in errors:
        progress.phase("answers to words alone")
        asked = _tried(job, questions), _read_examples(job, questions)
        best = measure_words_alone(job, prompts, items, *asked, rows, model.get, progress.add)
        job = job.model_copy(update={"versions": (*job.versions, best)})
    scored = [candidate.version for candidate in job.versions if candidate.version not in errors]
    if job.config.safety is not None:
        classify_answers(job.config.safety, items, rows, scored, progress.phase)
    progress.phase("judging")
    judges = judge_answers(job, items, rows, scored, job.judge_cache or out / "work" / "judged", progress.add)
    progress.phase("scoring")
    found = contaminated(items, job.training_files)
    scorecard = build_scorecard(job, questions, rows, errors, judges, found)
    _write_items(out, items, rows, scorecard)
    scorecard = scorecard.model_copy(
        update={
            "items_file_digest": digest_file(out / "items.parquet"),
            "created_at": now(),
            "seconds": time.monotonic() - began,
        }
    )
    atomic_write(out / "scorecard.json", scorecard.model_dump_json(indent=1) + "\n")
    from evaluation.report.report import EXAMPLES, publish_report

    progress.phase("report")
    atomic_write(out / EXAMPLES, json.dumps(_examples(job, questions, rows), ensure_ascii=False, indent=1) + "\n")
    publish_report(out, None)
    record = finished_record(
        name=f"evaluation of {len(job.versions)} versions",
        key=key,
        digest=scorecard.digest,
        parents={"items": questions.digest, "base": job.base_digest} | {c.version: c.digest for c in job.versions},
        config=job.config.model_dump(mode="json"),
        result={
            "scorecard": "scorecard.json",
            "items": "items.parquet",
            "report": "report.html",
            "errors": errors,
            "models_loaded": model.loaded(),
            "seconds": scorecard.seconds,
        },
    )
    write_record(out, record)
    progress.add(progress.total)
    progress.phase("done")
    return record


class _Model:
    """The base with its tokenizer, loaded once and only when something is left to measure."""

    def __init__(self, job: EvaluationJob, progress: ProgressWriter) -> None:
        self._job, self._progress = job, progress
        self._generator: Generator | None = None

    def get(self) -> Generator:
        if self._generator is None:
            from training.generation.generator import Generator as TheGenerator

            self._progress.phase("loading the base model")
            self._generator = TheGenerator(self._job.base_path, dtype=self._job.dtype, threads=self._job.threads)
        return self._generator

    def loaded(self) -> list[str]:
        """Versions whose whole weights were read from disk this time, once for each time; the base's serve adapters."""
        named = {self._job.base_path: self._job.base.version}
        named |= {c.path: c.version for c in self._job.versions if c.path is not None}
        return [named[path] for path in self._generator.attached.loaded] if self._generator is not None else []


def _amount(job: EvaluationJob, items: int, prompts: int) -> int:
    """Units of work: answers, regression runs (as 20 answers each), the champion's second answers, comparisons."""
    versions = len(job.versions)
    again = min(job.config.noise_items, items)
    compared = (len(matches(job, [c.version for c in job.versions])) * items + again) * len(job.config.judges)
    regression = 20 * versions if job.config.regression else 0
    words = prompts * job.config.prompt_items + items if prompts else 0
    return versions * items + regression + again + compared + words


def _answers(
    job: EvaluationJob, questions: Questions, rows: Rows, work: Path, progress: ProgressWriter, model: _Model
) -> dict[str, str]:
    """Let every version answer what it has not yet; version -> error for those that could not."""
    errors: dict[str, str] = {}
    items, shown = questions.items, _read_examples(job, questions)
    for candidate in _order(job):
        if _finished(job, candidate, items, shown, rows):
            progress.add(len(items) + (20 if job.config.regression else 0))
            continue
        generator = model.get()
        try:
            with _attached(generator, candidate) as adapter:
                progress.phase(f"answers of {candidate.label}")
                _measure(generator, adapter, candidate, job, items, shown, rows, work, progress)
        except RatchetError as error:
            log.warning("version %s cannot be scored: %s", candidate.version, error)
            errors[candidate.version] = str(error)
    return errors


def _order(job: EvaluationJob) -> list[Candidate]:
    """Base and champion first: without them the rest is worth nothing."""
    return sorted(job.versions, key=lambda c: (c.kind != "base", c.version != job.champion, c.version))


def _finished(
    job: EvaluationJob, candidate: Candidate, items: Sequence[GateItem], shown: Sequence[GateItem], rows: Rows
) -> bool:
    version = candidate.version
    return (
        all(rows.get("answer", version, item.item_id) for item in items)
        and all(rows.get("example", version, item.item_id) for item in shown)
        and (candidate.kind == "base" or rows.get("parity", version) is not None)
        and (not job.config.regression or bool(rows.starting("regression", version)))
        and (version != job.champion or _measured_twice(job, items, rows))
    )


def _measured_twice(job: EvaluationJob, items: Sequence[GateItem], rows: Rows) -> bool:
    """Whether the champion's second answers, and its base abilities once more, are there."""
    wanted = min(job.config.noise_items, len(items))
    abilities = not (wanted and job.config.regression) or bool(rows.starting("regression again", job.champion))
    return abilities and len(rows.starting("again", job.champion)) >= wanted


@contextlib.contextmanager
def _attached(generator: Generator, candidate: Candidate) -> Iterator[str | None]:
    if candidate.kind == "base":
        yield None
        return
    assert candidate.path is not None, "Candidate has checked that weights have a path"
    attach = generator.attach if candidate.kind == "adapter" else generator.attach_model
    attach(candidate.version, candidate.path)
    try:
        yield candidate.version
    finally:
        generator.detach(candidate.version)


def _measure(
    generator: Generator,
    adapter: str | None,
    candidate: Candidate,
    job: EvaluationJob,
    items: Sequence[GateItem],
    shown: Sequence[GateItem],
    rows: Rows,
    work: Path,
    progress: ProgressWriter,
) -> None:
    version, config = candidate.version, job.config
    if adapter is not None and rows.get("parity", version) is None:
        assert candidate.path is not None
        probe = candidate.probe or candidate.path.parent / "probe.json"
        state, error = check_parity(generator, adapter, probe, config.parity_tolerance)
        rows.append([(("parity", version), {"state": state, "error": error})])

    def answer(what: str, which: Sequence[GateItem], size: int, on_done: Callable[[int], None]) -> None:
        answer_items(
            generator,
            adapter,
            which,
            rows,
            (what, version),
            batch_size=size,
            max_new_tokens=config.max_new_tokens,
            on_done=on_done,
        )

    answer("answer", items, config.batch_size, progress.add)
    answer("example", shown, config.batch_size, lambda count: None)
    if version == job.champion and config.noise_items:
        # Every so-many-th item, in batches of another size: what changes is the instrument's doing.
        again = items[:: max(1, len(items) // config.noise_items)][: config.noise_items]
        answer("again", again, max(1, config.batch_size // 3), progress.add)
    if config.regression:
        progress.phase(f"base abilities of {candidate.label}")
        _regression(generator, adapter, version, job, rows, work)
        progress.add(20)


def _regression(
    generator: Generator, adapter: str | None, version: str, job: EvaluationJob, rows: Rows, work: Path
) -> None:
    from evaluation.abilities.bundled_pack import measure_again
    from evaluation.abilities.measure import measure

    limit, noise = job.config.regression_limit, job.config.noise_items
    if not rows.starting("regression", version):
        tasks = job.config.regression_tasks
        found = measure(generator, adapter, tasks=tasks, limit=limit, scratch=work / "datasets")
        rows.append([(("regression", version, score.item_id), asdict(score)) for score in found])
    if version == job.champion and noise and not rows.starting("regression again", version):
        found = measure_again(generator, adapter, noise, limit)
        rows.append([(("regression again", version, score.item_id), asdict(score)) for score in found])


def _read_examples(job: EvaluationJob, questions: Questions) -> Sequence[GateItem]:
    """Items that people may see. They come from a file of their own: validation or retired items, never the gate's."""
    return questions.shown[: job.config.report_examples]


def _tried(job: EvaluationJob, questions: Questions) -> Sequence[GateItem]:
    """Items that prompts are chosen on."""
    return questions.shown[: job.config.prompt_items] if job.config.prompt_candidates else []


def _examples(job: EvaluationJob, questions: Questions, rows: Rows) -> list[dict[str, Any]]:
    from evaluation.job.items import conversation_text

    return [
        {
            "item_id": item.item_id,
            "question": conversation_text(item.messages),
            "reference": item.reference,
            "answers": {version: row["answer"] for version, row in found.items()},
            "metrics": {
                name: {version: find_metric(name).score(answered(item, row)) for version, row in found.items()}
                for name in sorted(set(job.config.metrics))
            },
        }
        for item in _read_examples(job, questions)
        if (found := _example_rows(job, rows, item.item_id))
    ]


def _example_rows(job: EvaluationJob, rows: Rows, item_id: str) -> dict[str, Row]:
    found = {c.version: rows.get("example", c.version, item_id) for c in job.versions}
    return {version: row for version, row in found.items() if row is not None}


def _write_items(out: Path, items: Sequence[GateItem], rows: Rows, scorecard: Scorecard) -> None:
    """One line per item and version: every metric's value in items.parquet, the answer's text in answers.parquet.

    Apart, because the values go to MLflow, where people look, and people are not to see what gate items ask.
    """
    import pyarrow as pa

    metrics = [info.name for info in scorecard.metrics if info.table == "gate"]
    facts = ("item_id", "group", "part", "uses", "version")
    columns: dict[str, list[Any]] = {name: [] for name in (*facts, "answer", *metrics)}
    for card in scorecard.versions:
        for index, item in enumerate(items):
            row = rows.get("answer", card.version, item.item_id)
            if row is None:
                continue
            said = (item.item_id, item.group, item.part, item.uses, card.version, row["answer"])
            for name, value in zip((*facts, "answer"), said, strict=True):
                columns[name].append(value)
            for name in metrics:
                values = scorecard.gate.scores[name].get(card.version)
                columns[name].append(values[index] if values else None)
    table = pa.table(
        {name: pa.array(v, pa.float64()) if name in metrics else pa.array(v) for name, v in columns.items()}
    )
    _write_table(out / ANSWERS, table.select(["item_id", "version", "answer"]))
    _write_table(out / "items.parquet", table.drop_columns(["answer"]))


def _write_table(path: Path, table: Any) -> None:
    import pyarrow.parquet as pq

    staging = path.with_suffix(".tmp")
    pq.write_table(table, staging)
    staging.replace(path)
