"""Grade many answers: each by its problem's grader, the risky ones in a process of their own with a time limit.

A grader that raises, hangs, or gives no finite number grades that answer 0, and the failure is counted. One that cannot
be imported, or fails on every answer of a collection, is an error that says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.errors import UserError
from training.graders import OWN, grader_for, grader_named
from training.graders.grader import Problem
from training.graders.subprocess_grader import NoGrade, SubprocessGrader

log = logging.getLogger(__name__)


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
    _workers: dict[str, SubprocessGrader] = field(default_factory=dict)

    def check(self) -> None:
        """Find out now whether a function of one's own can be imported.

        Raises:
            UserError: it cannot.
        """
        if self.own is not None and self.own.startswith("python:"):
            self._worker(self.own)

    def grade(self, answers: Sequence[tuple[str, str]]) -> list[float]:
        """Grade each (answer, note of its problem).

        Raises:
            UserError: not one of them could be graded.
        """
        failed, grades = self.failures, [self._grade(answer, json.loads(note)) for answer, note in answers]
        self.graded += len(grades)
        if grades and self.failures - failed == len(grades):
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

    def _grade(self, answer: str, problem: Problem) -> float:
        reference = problem.get("reference") or ""
        name = self.own or grader_for(problem.get("grader"), reference)
        assert name is not None, "problems with unknown graders are left out when they are encoded"
        if not name.startswith("python:") and not grader_named(name).isolated:
            return grader_named(name).grade(answer, reference)
        try:
            grade = self._worker(name).ask(answer, problem.get("reference"), self.seconds, problem.get("messages"))
            if grade is None:
                raise NoGrade("it gave None; expected a finite number")
        except NoGrade as failed:
            self._fail(name, str(failed))
            return 0.0
        return grade

    def _fail(self, name: str, reason: str) -> None:
        if not self.failures:
            log.warning("grader %s failed, the answer counts 0: %s", name, reason)
        self.failures += 1
        self.last_error = f"{name}: {reason}"

    def _worker(self, name: str) -> SubprocessGrader:
        if name not in self._workers:
            self._workers[name] = SubprocessGrader(name)
        return self._workers[name]


def check_name(name: str) -> str:
    """Check the name of a grader that a recipe gives, and return it.

    Raises:
        ValueError: it is neither ours nor an import path.
    """
    from training.graders import GRADERS

    if name not in GRADERS and not OWN.match(name):
        raise ValueError(
            f"unknown grader {name!r}; expected one of {', '.join(GRADERS)}, or python:package.module:function"
        )
    return name
