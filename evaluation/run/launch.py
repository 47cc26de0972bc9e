"""Run an evaluation in a process of its own: it has its own memory, can be killed, and resumes when launched again."""

from __future__ import annotations

from evaluation.job.config import EvaluationJob
from infra.artifact import Record, read_record
from infra.processes.child import Child, GrowingFile, Progress, failure_of, run_child


def launch_evaluation(job: EvaluationJob, on_progress: Progress = lambda line: None) -> Record:
    """Evaluate in a child process and wait for it; at once if the very same job was finished before.

    Args:
        job: what to measure.
        on_progress: gets every line of progress.jsonl as it is written: done, total, phase.

    Raises:
        RatchetError: the evaluation failed; of the kind that it failed with, naming its log.
    """
    out = job.output_dir.absolute()
    child = Child(
        what="the evaluation", module="evaluation", folder=out, log=out / "evaluation.log", threads=job.threads
    )
    progress = GrowingFile(out / "progress.jsonl", on_progress)
    progress.path.unlink(missing_ok=True)
    code = run_child(child, job, progress.look)
    record = read_record(out)
    if code == 0 and record is not None:
        return record
    raise failure_of(child, code)
