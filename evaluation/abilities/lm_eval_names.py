"""List the names of lm-eval's tasks without importing lm-eval: that and its index take half a minute, this a second.

A typo must be found when the config is read, not after a night's training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_NAMED = re.compile(r"^(?:[ \t-]*[\"']?(?:task|group|tag)[\"']?[ \t]*:|[ \t]*-)[ \t]*(\S.*)$", re.MULTILINE)
"""Lines of task files that name a task, a group or a tag, alone or in a list."""


def unknown_tasks(names: Sequence[str]) -> list[str]:
    """Pick the names that no file of lm-eval knows. Some others are no tasks: lm-eval itself refuses those later."""
    known = task_names() if names else frozenset()
    return [name for name in names if name not in known]


@cache
def task_names() -> frozenset[str]:
    """Read every name in lm-eval's task files, and some words more; empty where lm-eval is not installed."""
    spec = find_spec("lm_eval")
    names: set[str] = set()
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in (Path(folder) / "tasks").rglob("*"):
            if file.suffix in ("", ".yaml", ".yml") and file.is_file():  # files that others include have no ending
                for line in _NAMED.findall(file.read_text(errors="replace")):
                    names.update(re.split(r"[\s,\[\]\"']+", line))
    return frozenset(names - {""})
