"""Report progress of a child process: lines of progress.jsonl, written while it works, followed by who waits for it.

Stages write how many steps they have taken (`step`), evaluations how much is done (`done`); both are read as one thing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import AliasChoices, Field

from infra.stored_model import Stored

FILE = "progress.jsonl"


class ProgressLine(Stored):
    """One line of progress; further measures of a stage are kept under their own names."""

    done: int = Field(default=0, validation_alias=AliasChoices("step", "done"), serialization_alias="step")
    """Units of work done: optimizer steps of a stage."""
    total: int = 0
    """Units of work in all."""
    phase: str | None = None
    """What is being done (evaluations)."""
    loss: float | None = None
    """Training loss of the step (stages)."""
    lr: float | None = None
    """Learning rate."""
    tokens: int = 0
    """Tokens trained on so far."""
    seconds: float = 0.0
    """Seconds of work so far."""
    eval_loss: float | None = None
    """Validation loss, on lines of a measurement."""

    @property
    def percent(self) -> float:
        """Share that is done, from 0 to 100."""
        return 100.0 * self.done / max(1, self.total)

    def as_stage_json(self) -> str:
        """The line as a stage writes it."""
        return json.dumps(self.model_dump(by_alias=True, exclude={"phase"}))


OnProgress = Callable[[ProgressLine], None]


def read_progress(file: Path, skip: int = 0) -> list[ProgressLine]:
    """Read the whole lines of a progress file after the first `skip`; none where there is no file."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [ProgressLine.model_validate(json.loads(line)) for line in lines[skip:] if line]


def last_progress(file: Path) -> ProgressLine | None:
    """Read the last whole line of a progress file without the rest of it; None where there is none."""
    try:
        with file.open("rb") as lines:
            lines.seek(max(0, file.stat().st_size - 4096))
            whole = lines.read().split(b"\n")[:-1]
        return ProgressLine.model_validate(json.loads(whole[-1])) if whole else None
    except (OSError, ValueError):
        return None


class ProgressFollower:
    """Pass on each new line of a growing progress file.

    A resumed stage shortens its file first and then writes the same lines again; none is passed on twice.
    """

    def __init__(self, file: Path, on_progress: OnProgress) -> None:
        self.file = file
        self.on_progress = on_progress
        self.passed_on = 0

    def look(self) -> None:
        """Pass on what has been written since the last look."""
        for line in read_progress(self.file, skip=self.passed_on):
            self.passed_on += 1
            self.on_progress(line)


class ProgressWriter:
    """Count finished work and append a line to a progress file at most every half second."""

    def __init__(self, file: Path, total: int) -> None:
        self._file, self.total, self.done = file, max(1, total), 0
        self._phase, self._last = "", 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")

    def phase(self, name: str) -> None:
        """Begin another phase."""
        self._phase = name
        self._write()

    def add(self, count: int) -> None:
        """Count work as done."""
        self.done += count
        if time.monotonic() - self._last > 0.5:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        with self._file.open("a") as file:
            line = {"done": min(self.done, self.total), "total": self.total, "phase": self._phase}
            file.write(json.dumps(line) + "\n")
