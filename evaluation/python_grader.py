"""A metric of your own by import path, `python:package.module:function`, in a process apart with a time limit.

The function gets (answer, reference) and gives a number, more being better, or None where it does not apply to the
question. It is named in the config, never by the data: feedback comes from strangers, and no name in it runs code.

    python -m evaluation.python_grader package.module:function      # the process: JSON lines in, JSON lines out
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import math
import os
import re
import select
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from evaluation.metrics.metric import Answered, Metric
from infra.errors import UserError

log = logging.getLogger(__name__)

NAME = re.compile(r"^python:([A-Za-z_][\w.]*:[A-Za-z_]\w*)$")
SECONDS = 5.0
"""Time for one answer; one that takes longer counts 0."""
_START_SECONDS = 60.0


@cache
def python_metric(name: str) -> Metric:
    """The metric of a function; its process is started once and ends with this one.

    Raises:
        UserError: the name is none of this kind, or the function cannot be imported.
    """
    found = NAME.match(name)
    if found is None:
        raise UserError(f"{name!r} names no function; expected python:package.module:function")
    grader = PythonGrader(found.group(1))
    atexit.register(grader.stop)
    return Metric(name, "higher", False, f"What {found.group(1)} says of an answer.", grader.score)


class PythonGrader:
    """One function in a process of its own.

    Raises:
        UserError: it cannot be imported.
    """

    def __init__(self, path: str, *, seconds: float = SECONDS) -> None:
        self._path, self._seconds = path, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._start()

    def score(self, item: Answered) -> float | None:
        """The function's number; 0 where it raises, takes too long, or gives none that is finite."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([item.answer, item.reference]).encode() + b"\n")
            process.stdin.flush()
            said = self._line(self._seconds)
        except (OSError, TimeoutError) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
            self.stop()
        if "error" in said:
            log.warning("%s failed, the answer counts 0: %s", self._path, said["error"])
            return 0.0
        value = said["value"]
        return None if value is None else float(value)

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
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (root, str(Path.cwd()), os.environ.get("PYTHONPATH")) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "evaluation.python_grader", self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            said = self._line(_START_SECONDS)
        except (OSError, TimeoutError) as error:
            said = {"error": str(error)}
        if "error" in said:
            self.stop()
            raise UserError(
                f"metric python:{self._path} cannot be used: {said['error']}; expected a function that can be imported "
                "from the folder where this runs"
            )
        return self._process

    def _line(self, seconds: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError(f"no answer within {seconds:g} s")
            more = os.read(self._process.stdout.fileno(), 65536)
            if not more:
                raise OSError(f"its process ended with exit code {self._process.wait()}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


def main(path: str) -> int:
    """Grade lines of [answer, reference] until there are no more."""
    # What the function prints must not be taken for an answer.
    out, sys.stdout = sys.stdout, sys.stderr

    def say(value: dict[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a stranger's module raises on import
        say({"error": f"{type(error).__name__}: {error}"})
        return 1
    say({"ready": True})
    for line in sys.stdin:
        try:
            value = function(*json.loads(line))
            if value is not None and not math.isfinite(float(value)):
                raise ValueError(f"it gave {value}, expected a finite number or None")
            say({"value": None if value is None else float(value)})
        except Exception as error:  # the function is a stranger's; one answer must not end the evaluation
            say({"error": f"{type(error).__name__}: {error}"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
