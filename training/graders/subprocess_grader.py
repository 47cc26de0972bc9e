"""Run a grader in a process of its own: one that hangs or crashes costs one answer, and no run its life."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from infra.errors import UserError
from infra.processes.parent_death import PARENT
from infra.settings import Config
from infra.source_tree import python_path

Turn = Mapping[str, JsonValue]

START_SECONDS = 60.0
"""Time for the process to import what it needs."""


class Reply(Config):
    """One line of the grader's process."""

    ready: bool = False
    """Whether it has begun."""
    grade: float | None = None
    """The grade, where there is one."""
    error: str | None = None
    """Why there is none."""


class NoGrade(Exception):
    """No grade could be had for one answer."""


class SubprocessGrader:
    """One grader's process (`training.graders.worker`): started now, ended by `stop`, started again after a failure.

    Raises:
        UserError: the grader cannot be imported.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._start()

    def ask(
        self, answer: str, reference: str | None, seconds: float, messages: Sequence[Turn] | None = None
    ) -> float | None:
        """Get the grade of an answer; None where the grader says that it does not apply.

        Args:
            messages: the conversation, for functions of one's own that take it.

        Raises:
            NoGrade: it raised, gave no finite number, ended, or took longer than `seconds`.
            UserError: it had ended, and cannot be started again.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        question = {"answer": answer, "reference": reference}
        line = json.dumps(question if messages is None else {**question, "messages": messages})
        try:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            self.stop()
            raise NoGrade(f"its process ended: {error}") from error
        reply = self._reply(process, seconds)
        if reply.error is not None:
            raise NoGrade(reply.error)
        return reply.grade

    def stop(self) -> None:
        """End the process; the next answer starts another."""
        process, self._process, self._read = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "training.graders.worker", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, PARENT: str(os.getpid()), "PYTHONPATH": python_path(str(Path.cwd()))},
        )
        try:
            reply = self._reply(process, START_SECONDS)
        except NoGrade as failed:
            raise UserError(f"grader {self.name} cannot be started: {failed}") from failed
        if reply.error is not None:
            self.stop()
            raise UserError(
                f"grader {self.name} cannot be used: {reply.error}; expected python:package.module:function that "
                "can be imported from the folder where this runs"
            )
        return process

    def _reply(self, process: subprocess.Popen[bytes], seconds: float) -> Reply:
        assert process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                self.stop()
                raise NoGrade(f"no grade within {seconds:g} s")
            more = os.read(process.stdout.fileno(), 65536)
            if not more:
                self.stop()
                raise NoGrade(f"its process ended with exit code {process.returncode}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return Reply.model_validate_json(line)
