"""Score by a function of your own, `python:package.module:function`, in a process apart with a time limit.

The function gets (answer, reference) and gives a number, more being better, or None where it does not apply to the
question. It is named in the config, never by the data: feedback comes from strangers, and no name in it runs code.
"""

from __future__ import annotations

import atexit
import logging
from functools import cache

from evaluation.metrics.metric import Metric, MetricInput
from infra.errors import UserError
from training.graders import OWN
from training.graders.subprocess_grader import NoGrade, SubprocessGrader

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Time for one answer; one that takes longer counts 0."""


@cache
def python_metric(name: str) -> Metric:
    """Make the metric of a function; its process is started once and ends with this one.

    Raises:
        UserError: the name is none of this kind, or the function cannot be imported.
    """
    if OWN.match(name) is None:
        raise UserError(f"{name!r} names no function; expected python:package.module:function")
    grader = SubprocessGrader(name)
    atexit.register(grader.stop)

    def score(item: MetricInput) -> float | None:
        return score_apart(grader, item)

    return Metric(name, "higher", False, f"What {name.removeprefix('python:')} says of an answer.", score)


def score_apart(grader: SubprocessGrader, item: MetricInput, seconds: float = SECONDS) -> float | None:
    """Ask the function for its number; 0 where it raises, takes too long, or gives none that is finite."""
    try:
        return grader.ask(item.answer, item.reference, seconds)
    except NoGrade as failed:
        log.warning("%s failed, the answer counts 0: %s", grader.name, failed)
        return 0.0
