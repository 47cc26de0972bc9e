"""Register the graders: functions that score an answer against a reference. One file and one line for each.

A problem may name its grader; else the look of its reference decides (`grader_for`). A function of your own is named by
import path in the recipe, never by the data: feedback comes from strangers, and a name in it must not run code.
"""

from __future__ import annotations

import re

from infra.registry import Registry
from training.graders.grader import Grader

__all__ = ["GRADERS", "OWN", "Grader", "grader_for", "grader_named"]

GRADERS = Registry(
    "graders",
    "grader",
    {
        "exact_match": "training.graders.exact_match",
        "numeric_answer": "training.graders.numeric_answer",
        "regex": "training.graders.regex",
        "json_schema": "training.graders.json_schema",
        "json_fields": "training.graders.json_fields",
    },
    attribute="GRADER",
    of=Grader,
    own=", or python:package.module:function in the recipe's options",
)
"""Name -> module that defines `GRADER`."""

OWN = re.compile(r"^python:[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
"""How a function of one's own is named: python:package.module:function."""


grader_named = GRADERS.named


def grader_for(named: str | None, reference: str) -> str | None:
    """Find the grader of a problem: the one it names, else by the look of its reference; None for an unknown name."""
    from training.graders.json_answers import is_structured
    from training.graders.numeric_answer import is_number

    if named:
        return named if named in GRADERS else None
    if is_structured(reference):
        return "json_fields"
    return "numeric_answer" if is_number(reference) else "exact_match"
