"""Run an evaluation in a process of its own: it has its own memory, can be killed, and resumes when launched again."""

from __future__ import annotations

from evaluation.job.config import EvaluationJob
from infra.artifact import Record, read_record
from infra.processes.child import Child, failure_of, run_child
from infra.processes.progress import FILE, OnProgress, ProgressFollower


def launch_evaluation(job: EvaluationJob, on_progress: OnProgress = lambda line: None) -> Record:
    """Evaluate in a child process and wait for it; at once if the very same job was finished before.

    Args:
        job: what to measure.
        on_progress: gets every line of progress as it is written.

    Raises:
        RatchetError: the evaluation failed; of the kind that it failed with, naming its log.
    """
    out = job.output_dir.absolute()
    child = Child(
        label="the evaluation", module="evaluation", folder=out, log=out / "evaluation.log", threads=job.threads
    )
    progress = ProgressFollower(out / FILE, on_progress)
    progress.file.unlink(missing_ok=True)
    code = run_child(child, job, progress.look)
    record = read_record(out)
    if code == 0 and record is not None:
        return record
    raise failure_of(child, code)
