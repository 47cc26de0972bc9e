"""Run an evaluation in a process of its own: its memory is its own, it can be killed, and asked again it resumes."""

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
from evaluation.job import EvaluationJob
from infra.artifact import Record, atomic_write, read_record
from infra.errors import RatchetError
from training.hardware import thread_environment

Progress = Callable[[Mapping[str, Any]], None]


def launch_evaluation(job: EvaluationJob, on_progress: Progress = lambda line: None) -> Record:
    """Evaluate in a child process and wait for it; at once if the very same job was finished before.

    Args:
        job: what to measure.
        on_progress: gets every line of progress.jsonl as it is written: done, total, phase.

    Raises:
        RatchetError: the evaluation failed; of the kind that it failed with, naming its log.
    """
    from training.parent import PARENT

    out = job.output_dir.absolute()
    out.mkdir(parents=True, exist_ok=True)
    (out / "error.json").unlink(missing_ok=True)
    (out / "progress.jsonl").unlink(missing_ok=True)
    file = out / "job.json"
    atomic_write(file, job.model_dump_json(indent=2) + "\n")
    log_path = out / "evaluation.log"
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        PARENT: str(os.getpid()),
        **thread_environment(job.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part),
    }
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "evaluation", str(file)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    read = 0
    try:
        while process.poll() is None:
            time.sleep(0.2)
            read = _pass_on(out / "progress.jsonl", read, on_progress)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    _pass_on(out / "progress.jsonl", read, on_progress)
    record = read_record(out)
    if process.returncode == 0 and record is not None:
        return record
    raise _failure(out, process.returncode, log_path)


def _pass_on(path: Path, read: int, on_progress: Progress) -> int:
    """Hand on whole new lines from byte `read`; the byte to go on from."""
    try:
        data = path.read_bytes()[read:]
    except FileNotFoundError:
        return read
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.splitlines():
        on_progress(json.loads(line))
    return read + len(whole)


def _failure(out: Path, code: int | None, log: Path) -> RatchetError:
    try:
        said = json.loads((out / "error.json").read_text())
    except (OSError, ValueError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return RatchetError(
            f"the evaluation ended with exit code {code} and no record: {lines[-1] if lines else 'no output'} "
            f"(log: {log}); start it again, it resumes"
        )
    kind = getattr(infra.errors, said["type"], RatchetError)
    error: RatchetError = kind(f"the evaluation failed: {said['message']} (log: {log})")
    return error
