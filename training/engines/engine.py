"""Describe a training engine: who computes a stage, and what it can compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingEngine:
    """One program that trains stages.

    Its `module` is run as `python -m module job.json` in a process of its own, with a `training.stages.job.StageJob`.
    It writes lines of progress as `infra.processes.progress` reads them, resumes in `job.work` when it is started
    again, and ends with the stage in `job.final`, its record written last.
    """

    name: str
    summary: str
    """One sentence."""
    version: int
    """Part of a stage's key; raise it when it makes other weights of the same job."""
    module: str
    """What is run."""
    refuses: Callable[[str, str], str | None]
    """(objective, tuner) -> why it cannot train the two together; None where it can."""
