"""Show progress of a child process in Prefect: one progress artifact, updated at most every few seconds."""

from __future__ import annotations

import logging
import time
from typing import cast
from uuid import UUID

from infra.processes.progress import ProgressLine

log = logging.getLogger(__name__)


class ProgressBar:
    """A progress artifact of the running task, made at the first line.

    Args:
        description: what it is called.
        every_seconds: least time between two updates; the last line always counts.
    """

    def __init__(self, description: str, *, every_seconds: float = 2.0) -> None:
        self.description = description
        self.every_seconds = every_seconds
        self._updated = 0.0
        self._artifact: UUID | None = None

    def show(self, line: ProgressLine) -> None:
        """Take over a line of progress."""
        if time.monotonic() - self._updated < self.every_seconds and line.done < line.total:
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        self._updated = time.monotonic()
        if self._artifact is None:
            # Called without a running event loop, it is no coroutine.
            self._artifact = cast("UUID", create_progress_artifact(line.percent, description=self.description))
        else:
            update_progress_artifact(self._artifact, line.percent)
        if line.phase is not None:
            log.info("%s: %s of %s (%s)", self.description, line.done, line.total, line.phase)
