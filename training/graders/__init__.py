"""Register the graders: functions that score an answer against a reference. One file and one line for each.

A problem may name its grader; else the look of its reference decides (`grader_for`). A function of your own is named by
import path in the recipe, never by the data: feedback comes from strangers, and a name in it must not run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module

from infra.errors import NotFound
from training.graders.grader import Grader

GRADERS: Mapping[str, str] = {
    "exact_match": "training.graders.exact_match",
    "numeric_answer": "training.graders.numeric_answer",
    "regex": "training.graders.regex",
    "json_schema": "training.graders.json_schema",
    "json_fields": "training.graders.json_fields",
}
"""Name -> module that defines `GRADER`."""

OWN = re.compile(r"^python:[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
"""How a function of one's own is named: python:package.module:function."""


def grader_named(name: str) -> Grader:
    """The grader called `name`.

    Raises:
        NotFound: there is none; the message lists those there are.
    """
    if name not in GRADERS:
        raise NotFound(
            f"unknown grader {name!r}; expected one of {', '.join(GRADERS)}, or python:package.module:function in the "
            "recipe's options"
        )
    grader = import_module(GRADERS[name]).GRADER
    assert isinstance(grader, Grader) and grader.name == name
    return grader


def grader_for(named: str | None, reference: str) -> str | None:
    """The grader of a problem: the one it names, else by the look of its reference; None for an unknown name."""
    from training.graders.json_answers import is_structured
    from training.graders.numeric_answer import is_number

    if named:
        return named if named in GRADERS else None
    if is_structured(reference):
        return "json_fields"
    return "numeric_answer" if is_number(reference) else "exact_match"
