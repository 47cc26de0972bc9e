"""Run a job in a child process, both ends of it: stages and evaluations are started, watched and reported alike.

The one who starts it (`run_child`) writes the job's file, passes its progress on while it runs, and turns its failure
into an error of the kind that it failed with. The process itself (`child_main`) dies with the one who started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import infra.errors
from infra.artifact import atomic_write
from infra.errors import RatchetError
from infra.processes.job_file import Job, job_main
from infra.processes.parent_death import PARENT, die_with_parent
from infra.processes.threads import thread_environment
from infra.settings import Config
from infra.source_tree import python_path

ERROR = "error.json"


@dataclass(frozen=True)
class Child:
    """`python -m module job.json`, and where it keeps what it says."""

    label: str
    """For people, such as "the evaluation"."""
    module: str
    """Module that is run."""
    folder: Path
    """Where job.json is written, and error.json if it fails."""
    log: Path
    """Where its output goes."""
    threads: int
    """Threads it computes with."""
    processes: int = 1
    """More than one: torchrun starts so many, which train together."""


def run_child(child: Child, job: Config, on_wait: Callable[[], None]) -> int:
    """Run the job to its end; return the exit code. `on_wait` is called again and again meanwhile.

    The child dies with the thread that called this function.
    """
    child.folder.mkdir(parents=True, exist_ok=True)
    child.log.parent.mkdir(parents=True, exist_ok=True)
    (child.folder / ERROR).unlink(missing_ok=True)
    file = child.folder / "job.json"
    atomic_write(file, job.model_dump_json(indent=2) + "\n")
    environment = {
        **os.environ,
        PARENT: str(os.getpid()),
        **thread_environment(child.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": python_path(),
    }
    command = [sys.executable, "-m"]
    if child.processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={child.processes}", "-m"]
    with child.log.open("ab") as log:
        process = subprocess.Popen(
            [*command, child.module, str(file)], stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while process.poll() is None:
            time.sleep(0.2)
            on_wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    on_wait()
    return int(process.returncode)


def failure_of(child: Child, code: int) -> RatchetError:
    """Make the error that a child which made no record died of: of the kind that it failed with, naming its log."""
    try:
        failure = json.loads((child.folder / ERROR).read_text())
    except (OSError, ValueError):
        lines = child.log.read_text(errors="replace").strip().splitlines()
        return RatchetError(
            f"{child.label} ended with exit code {code} and no record: {lines[-1] if lines else 'no output'} "
            f"(log: {child.log}); start it again, it resumes"
        )
    kind = getattr(infra.errors, failure["type"], RatchetError)
    error: RatchetError = kind(f"{child.label} failed: {failure['message']} (log: {child.log})")
    return error


def child_main(
    arguments: list[str],
    kind: type[Job],
    *,
    module: str,
    folder: Callable[[Job], Path],
    threads: Callable[[Job], int],
    run: Callable[[Job], object],
) -> int:
    """Run the main function of `python -m module job.json` in the child.

    Args:
        arguments: the command line's.
        kind: what the job's file holds.
        module: its name, for messages.
        folder: where error.json goes.
        threads: how many to compute with.
        run: does the work; it is what first imports torch.

    Returns:
        Exit code: 0 done, 2 something the person can mend, 1 anything else; error.json says what.
    """

    def run_and_report(job: Job) -> None:
        # Read by native libraries when they load, so before torch is imported.
        os.environ.update(thread_environment(threads(job)))
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            run(job)
        except RatchetError as error:
            failure = {"type": type(error).__name__, "message": str(error)}
            atomic_write(folder(job) / ERROR, json.dumps(failure))
            raise

    die_with_parent()
    return job_main(module, arguments, kind, run_and_report)
