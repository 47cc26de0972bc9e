"""Run a stage in a process of its own: its memory is its own, it can be killed, and it resumes when asked again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import infra.errors
from infra.artifact import Record, atomic_write, read_record
from infra.errors import RatchetError
from training.hardware import thread_environment
from training.job import StageJob
from training.parent import PARENT

Progress = Callable[[Mapping[str, Any]], None]


def launch_stage(job: StageJob, on_progress: Progress = lambda line: None) -> Record:
    """Train the stage in a child process and wait for it; return at once if it was finished before.

    A stage that was killed goes on from its last checkpoint. Two launchers of one stage: the second waits for the
    first. The child dies with the thread that called this function.

    Args:
        job: the stage.
        on_progress: gets every line of progress.jsonl as it is written (step, total, loss, lr, tokens, seconds,
            eval_loss).

    Raises:
        RatchetError: the stage failed; of the kind that it failed with, naming its log.
    """
    finished = read_record(job.final)
    if finished is not None:
        return finished
    job.work.mkdir(parents=True, exist_ok=True)
    (job.work / "error.json").unlink(missing_ok=True)
    file = job.work / "job.json"
    atomic_write(file, job.model_dump_json(indent=2) + "\n")
    logs = job.stages_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log_path = logs / f"{job.key[:16]}.log"
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        PARENT: str(os.getpid()),
        **thread_environment(job.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p),
    }
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", str(file)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    tail = _Tail(job.work / "progress.jsonl")
    try:
        while process.poll() is None:
            time.sleep(0.2)
            tail.pass_on(on_progress)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    record = read_record(job.final)
    if record is not None:
        tail.path = job.final / "progress.jsonl"
        tail.pass_on(on_progress)
        return record
    raise _failure(job, process.returncode, log_path)


class _Tail:
    """Passes on the lines of a growing file. A resumed stage shortens it first: then it is read from the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = (0, False)

    def pass_on(self, on_progress: Progress) -> None:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        for raw in text.split("\n")[:-1]:
            line = json.loads(raw)
            at = (int(line["step"]), line["eval_loss"] is not None)
            if at > self.last:
                self.last = at
                on_progress(line)


def _failure(job: StageJob, code: int | None, log: Path) -> RatchetError:
    try:
        said = json.loads((job.work / "error.json").read_text())
    except (OSError, ValueError):
        lines = log.read_text(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        return RatchetError(
            f"stage {job.label} ended with exit code {code} and no record: {last} (log: {log}); "
            "start it again, it resumes"
        )
    kind = getattr(infra.errors, said["type"], RatchetError)
    error: RatchetError = kind(f"stage {job.label}: {said['message']} (log: {log})")
    return error
