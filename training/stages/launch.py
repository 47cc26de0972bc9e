"""Run a stage in a process of its own: its memory is its own, it can be killed, and it resumes when asked again."""

from __future__ import annotations

from infra.artifact import Record, read_record
from infra.processes.child import Child, failure_of, run_child
from infra.processes.progress import FILE, OnProgress, ProgressFollower
from training.engines import TRAINING_ENGINES
from training.stages.job import StageJob


def launch_stage(job: StageJob, on_progress: OnProgress = lambda line: None) -> Record:
    """Train the stage in a child process and wait for it; return at once if it was finished before.

    A stage that was killed goes on from its last checkpoint. Two launchers of one stage: the second waits for the
    first. The child dies with the thread that called this function. A job for several processes is started by torchrun.

    Args:
        job: the stage.
        on_progress: gets every line of progress as it is written; of a stage that was finished before too, so that a
            search that begins again judges as it did.

    Raises:
        RatchetError: the stage failed; of the kind that it failed with, naming its log.
    """
    finished = read_record(job.final)
    if finished is not None:
        ProgressFollower(job.final / FILE, on_progress).look()
        return finished
    child = Child(
        label=f"stage {job.label}",
        module=TRAINING_ENGINES.named(job.engine).module,
        folder=job.work,
        log=job.stages_dir / "logs" / f"{job.key[:16]}.log",
        threads=job.threads,
        processes=job.world_size,
    )
    progress = ProgressFollower(job.work / FILE, on_progress)
    code = run_child(child, job, progress.look)
    record = read_record(job.final)
    if record is None:
        raise failure_of(child, code)
    progress.file = job.final / FILE
    progress.look()
    return record
