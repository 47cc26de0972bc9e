"""Run a stage in a process of its own: its memory is its own, it can be killed, and it resumes when asked again."""

from __future__ import annotations

import json
from pathlib import Path

from infra.artifact import Record, read_record
from infra.processes.child import Child, Progress, failure_of, run_child
from training.stages.job import StageJob


def launch_stage(job: StageJob, on_progress: Progress = lambda line: None) -> Record:
    """Train the stage in a child process and wait for it; return at once if it was finished before.

    A stage that was killed goes on from its last checkpoint. Two launchers of one stage: the second waits for the
    first. The child dies with the thread that called this function. A job for several processes is started by torchrun.

    Args:
        job: the stage.
        on_progress: gets every line of progress.jsonl as it is written (step, total, loss, lr, tokens, seconds,
            eval_loss); of a stage that was finished before too, so that a search that begins again judges as it did.

    Raises:
        RatchetError: the stage failed; of the kind that it failed with, naming its log.
    """
    finished = read_record(job.final)
    if finished is not None:
        _Tail(job.final / "progress.jsonl", on_progress).look()
        return finished
    child = Child(
        what=f"stage {job.label}",
        module="training",
        folder=job.work,
        log=job.stages_dir / "logs" / f"{job.key[:16]}.log",
        threads=job.threads,
        processes=job.world_size,
    )
    tail = _Tail(job.work / "progress.jsonl", on_progress)
    code = run_child(child, job, tail.look)
    record = read_record(job.final)
    if record is None:
        raise failure_of(child, code)
    tail.path = job.final / "progress.jsonl"
    tail.look()
    return record


class _Tail:
    """Passes on the lines of a growing file. A resumed stage shortens it first; no line is passed on twice."""

    def __init__(self, path: Path, on_progress: Progress) -> None:
        self.path = path
        self.on_progress = on_progress
        self.last = (0, False)

    def look(self) -> None:
        """Pass on what is new."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        for raw in text.split("\n")[:-1]:
            line = json.loads(raw)
            at = (int(line["step"]), line["eval_loss"] is not None)
            if at > self.last:
                self.last = at
                self.on_progress(line)
