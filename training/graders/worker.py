"""Grade in a process of its own: `python -m training.graders.worker NAME`, one JSON line in, one out.

A grader that hangs is killed with this process and no other; what it prints goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Grade = Callable[[Mapping[str, Any]], Any]
"""A question as `SubprocessGrader.ask` takes it -> its grade, of whatever type a function of one's own returns."""


def load(name: str) -> Grade:
    """Load the function behind a grader's name: one of ours, or python:package.module:function.

    One's own is called with (answer, reference) and, where it takes three arguments, the conversation.
    """
    if not name.startswith("python:"):
        from training.graders import grader_named

        ours = grader_named(name)
        return lambda question: ours.grade(question["answer"], question["reference"] or "")
    import inspect

    _, module, function = name.split(":")
    own: Callable[..., Any] = getattr(import_module(module), function)
    if len(inspect.signature(own).parameters) >= 3:
        return lambda question: own(question["answer"], question["reference"], question["messages"])
    return lambda question: own(question["answer"], question["reference"])


def main(name: str) -> int:
    """Answer until stdin ends."""
    from infra.processes.parent_death import die_with_parent

    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a grader prints must not look like a grade

    def reply(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")

    try:
        grade = load(name)
    except Exception as error:
        reply(error=f"{type(error).__name__}: {error}")
        return 1
    reply(ready=True)
    for line in sys.stdin:
        try:
            value = grade(json.loads(line))
            if value is not None and not math.isfinite(float(value)):
                raise ValueError(f"the grade is {value}; expected a finite number")
            reply(grade=None if value is None else float(value))
        except Exception as error:
            reply(error=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
