"""Run one evaluation: the base is loaded once, versions answer the same items one after another, entries are durable.

A killed run resumes where it was: a piece of work is done again only when its entries were not on disk, and always in
the same batches, so the scorecard's digest is the same as without the kill.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from evaluation.abilities.lm_eval_names import unknown_tasks
from evaluation.answers.entries import EXAMPLE_ANSWERS, metric_input
from evaluation.answers.few_shot_prompts import Prompt
from evaluation.answers.prompt_baseline import PromptBaseline, candidate_prompts
from evaluation.answers.safety import classify_answers
from evaluation.job.config import EvaluationJob, evaluation_key
from evaluation.job.items import conversation_text, find_contamination
from evaluation.job.journal import Journal
from evaluation.judges import JUDGES
from evaluation.metrics import find_metric
from evaluation.report.examples import ReportExample, write_examples
from evaluation.run.build_scorecard import build_scorecard
from evaluation.run.measure_versions import REGRESSION_WORK, LazyBase, VersionMeasurement
from evaluation.run.questions import Questions, read_questions
from evaluation.run.win_rates import comparisons, judge_answers
from evaluation.run.write_tables import ITEMS_TABLE, write_tables
from evaluation.scorecard import Scorecard
from infra.artifact import Record, atomic_write, digest_file, finished_record, read_record, write_record
from infra.database.connect import now
from infra.errors import UserError
from infra.processes.progress import FILE, ProgressWriter
from infra.stored_model import Stored

log = logging.getLogger(__name__)


class EvaluationResult(Stored):
    """What an evaluation's record says came out; files are named within its folder."""

    scorecard: str = "scorecard.json"
    items: str
    """Table of every metric's values."""
    report: str = "report.html"
    errors: Mapping[str, str]
    """Version -> why it could not be scored."""
    models_loaded: tuple[str, ...]
    """Versions whose whole weights were read from disk this time."""
    seconds: float
    """How long it ran."""


def evaluate(job: EvaluationJob) -> Record:
    """Measure everything the job names and write the output folder; at once if it was finished before.

    Raises:
        UserError: items, metrics, judges or tasks are named wrongly.
        RatchetError: the base cannot be loaded. A version that cannot is reported on the scorecard instead.
    """
    from infra.processes.locks import file_lock

    _check_names(job)
    questions = read_questions(job.items_file, job.examples_file, job.base_path)
    prompts = candidate_prompts(job, questions.trial_items(job.config))
    prompts = tuple(prompt for prompt in prompts if questions.askable(prompt))
    key = evaluation_key(job, questions.digest, [prompt.version for prompt in prompts])
    with file_lock(job.output_dir / ".lock"):
        record = read_record(job.output_dir)
        if record is not None and record.key == key:
            return record
        return _evaluate(job, questions, prompts, key)


def _check_names(job: EvaluationJob) -> None:
    """Names that would otherwise be looked up only after all answers are there."""
    for judge in job.config.judges:
        if judge.name not in JUDGES:
            raise UserError(f"{JUDGES.unknown(judge.name)} (evaluation.judges)")
    tasks = unknown_tasks(job.config.regression_tasks) if job.config.regression else []
    if tasks:
        raise UserError(
            f"lm-eval knows no task {', '.join(tasks)}; `lm-eval ls tasks` lists them (evaluation.regression_tasks)"
        )


def _evaluate(job: EvaluationJob, questions: Questions, prompts: Sequence[Prompt], key: str) -> Record:
    items, folder = questions.items, job.output_dir
    for aside in questions.set_aside:
        log.warning("gate item %s is set aside for all versions: %s", aside.item_id, aside.reason)
    began = time.monotonic()
    (folder / "record.json").unlink(missing_ok=True)  # of another job: from here on the folder is not whole
    work = folder / "work" / key[:16]
    journal = Journal(work / "rows.jsonl")
    progress = ProgressWriter(folder / FILE, _amount(job, len(items), len(prompts)))
    base = LazyBase(job, progress)
    measurement = VersionMeasurement(job, questions, journal, base, progress, work / "datasets")
    errors = measurement.measure_all() if items else {}
    if items and prompts and job.base.version not in errors:
        progress.phase("answers to words alone")
        baseline = PromptBaseline(job, prompts, journal, measurement.answering)
        best = baseline.measure(items, questions.trial_items(job.config), questions.report_examples(job.config))
        job = job.model_copy(update={"versions": (*job.versions, best)})
    scored = [candidate.version for candidate in job.versions if candidate.version not in errors]
    if job.config.safety is not None:
        classify_answers(job.config.safety, items, journal, scored, progress.phase)
    progress.phase("judging")
    judges = judge_answers(job, items, journal, scored, job.judge_cache or folder / "work" / "judged", progress.add)
    progress.phase("scoring")
    contamination = find_contamination(items, job.training_files)
    scorecard = build_scorecard(job, questions, journal, errors, judges, contamination)
    write_tables(folder, items, journal, scorecard)
    scorecard = scorecard.model_copy(
        update={
            "items_file_digest": digest_file(folder / ITEMS_TABLE),
            "created_at": now(),
            "seconds": time.monotonic() - began,
        }
    )
    record = _publish(job, questions, journal, scorecard, key, models_loaded=base.loaded())
    progress.add(progress.total)
    progress.phase("done")
    return record


def _publish(
    job: EvaluationJob,
    questions: Questions,
    journal: Journal,
    scorecard: Scorecard,
    key: str,
    models_loaded: Sequence[str],
) -> Record:
    """Write scorecard and report, and last of all the record."""
    from evaluation.report.report import publish_report

    folder = job.output_dir
    atomic_write(folder / "scorecard.json", scorecard.model_dump_json(indent=1) + "\n")
    write_examples(folder, _examples(job, questions, journal))
    publish_report(folder, None)
    record = finished_record(
        name=f"evaluation of {len(job.versions)} versions",
        key=key,
        digest=scorecard.digest,
        parents={"items": questions.digest, "base": job.base_digest} | {c.version: c.digest for c in job.versions},
        config=job.config.model_dump(mode="json"),
        result=EvaluationResult(
            items=ITEMS_TABLE,
            errors={card.version: card.error for card in scorecard.versions if card.error is not None},
            models_loaded=tuple(models_loaded),
            seconds=scorecard.seconds,
        ).model_dump(mode="json"),
    )
    write_record(folder, record)
    return record


def _amount(job: EvaluationJob, items: int, prompts: int) -> int:
    """Units of work: answers, regression runs, the champion's second answers, comparisons."""
    versions = len(job.versions)
    again = min(job.config.noise_items, items)
    compared = (len(comparisons(job, [c.version for c in job.versions])) * items + again) * len(job.config.judges)
    regression = REGRESSION_WORK * versions if job.config.regression else 0
    trials = prompts * job.config.prompt_items + items if prompts else 0
    return versions * items + regression + again + compared + trials


def _examples(job: EvaluationJob, questions: Questions, journal: Journal) -> list[ReportExample]:
    examples = []
    for item in questions.report_examples(job.config):
        entries = {
            candidate.version: entry
            for candidate in job.versions
            if (entry := journal.get(EXAMPLE_ANSWERS, candidate.version, item.item_id)) is not None
        }
        if not entries:
            continue
        inputs = {version: metric_input(item, entry) for version, entry in entries.items()}
        examples.append(
            ReportExample(
                item_id=item.item_id,
                question=conversation_text(item.messages),
                reference=item.reference,
                answers={version: entry.answer for version, entry in entries.items()},
                metrics={
                    name: {version: find_metric(name).score(given) for version, given in inputs.items()}
                    for name in sorted(set(job.config.metrics))
                },
            )
        )
    return examples
