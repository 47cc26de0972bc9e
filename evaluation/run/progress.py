"""Report the progress of an evaluation: finished work, as lines of progress.jsonl."""

from __future__ import annotations

import json
import time
from pathlib import Path


class EvaluationProgress:
    """Counts finished work and appends a line to progress.jsonl at most every half second."""

    def __init__(self, path: Path, total: int) -> None:
        self._path, self.total, self.done = path, max(1, total), 0
        self._phase, self._last = "", 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def phase(self, name: str) -> None:
        """Note that another phase began."""
        self._phase = name
        self._write()

    def add(self, count: int) -> None:
        """Count finished work."""
        self.done += count
        if time.monotonic() - self._last > 0.5:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        with self._path.open("a") as file:
            line = {"done": min(self.done, self.total), "total": self.total, "phase": self._phase}
            file.write(json.dumps(line) + "\n")
