"""Grade many answers: each by its problem's grader, the risky ones in a process apart with a time limit.

A grader that raises, hangs, or gives no finite number grades that answer 0, and the failure is counted. One that cannot
be imported, or fails on every answer of a collection, is an error that says so.
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.errors import UserError
from training.graders import OWN, grader_for, grader_named
from training.parent import PARENT

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""Time for a worker to import what it needs."""


@dataclass
class Grading:
    """Grades and counts. Close it when done."""

    own: str | None = None
    """Grader for all problems; default: each problem's own, or by the look of its reference."""
    seconds: float = 5.0
    """Time limit for one answer."""
    failures: int = 0
    """Answers that no grade could be had for."""
    graded: int = 0
    """Answers graded, failures included."""
    last_error: str = ""
    """What the last failure was."""
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def check(self) -> None:
        """Find out now whether a function of one's own can be imported.

        Raises:
            UserError: it cannot.
        """
        if self.own is not None and self.own.startswith("python:"):
            self._worker(self.own)

    def grade(self, answers: Sequence[tuple[str, str]]) -> list[float]:
        """A grade for each (answer, note of its problem).

        Raises:
            UserError: not one of them could be graded.
        """
        before, grades = self.failures, [self._one(answer, json.loads(note)) for answer, note in answers]
        self.graded += len(grades)
        if grades and self.failures - before == len(grades):
            raise UserError(
                f"the grader failed on all {len(grades)} answers of a step; the last failure: {self.last_error}; mend "
                "the grader, or name another in the recipe's options"
            )
        return grades

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def _one(self, answer: str, note: dict[str, Any]) -> float:
        name = self.own or grader_for(note.get("grader"), note.get("reference") or "")
        assert name is not None, "problems with unknown graders are left out when they are encoded"
        apart = name.startswith("python:") or grader_named(name).apart
        if not apart:
            return grader_named(name).grade(answer, note.get("reference") or "")
        try:
            return self._worker(name).ask({**note, "answer": answer}, self.seconds)
        except _Failed as failed:
            self._fail(name, str(failed))
            return 0.0

    def _fail(self, name: str, reason: str) -> None:
        if not self.failures:
            log.warning("grader %s failed, the answer counts 0: %s", name, reason)
        self.failures += 1
        self.last_error = f"{name}: {reason}"

    def _worker(self, name: str) -> _Worker:
        worker = self._workers.get(name)
        if worker is None or not worker.alive:
            worker = self._workers[name] = _Worker(name)
        return worker


class _Failed(Exception):
    """No grade could be had for one answer."""


class _Worker:
    """One process that grades by one grader."""

    def __init__(self, name: str) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(p for p in (root, os.getcwd(), os.environ.get("PYTHONPATH")) if p)  # noqa: PTH109
        self._process = subprocess.Popen(
            [sys.executable, "-m", "training.graders.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, PARENT: str(os.getpid()), "PYTHONPATH": path},
        )
        self._read = b""
        try:
            said = self._line(START_SECONDS)
        except _Failed as failed:
            raise UserError(f"grader {name} cannot be started: {failed}") from failed
        if "error" in said:
            self.stop()
            raise UserError(
                f"grader {name} cannot be used: {said['error']}; expected python:package.module:function that can be "
                "imported from the folder where this runs"
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: dict[str, Any], seconds: float) -> float:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise _Failed(f"its process ended: {error}") from error
        said = self._line(seconds)
        if "error" in said:
            raise _Failed(str(said["error"]))
        return float(said["grade"])

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _line(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self.stop()
                raise _Failed(f"no grade within {seconds:g} s")
            more = os.read(self._process.stdout.fileno(), 65536)
            if not more:
                self.stop()
                raise _Failed(f"its process ended with exit code {self._process.returncode}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


def check_name(name: str) -> str:
    """The name of a grader, if it is one that a recipe may give.

    Raises:
        ValueError: it is neither ours nor an import path.
    """
    from training.graders import GRADERS

    if name not in GRADERS and not OWN.match(name):
        raise ValueError(
            f"unknown grader {name!r}; expected one of {', '.join(GRADERS)}, or python:package.module:function"
        )
    return name
