"""Which share of a JSON object's fields has the answer right? Partial credit is easier to learn from than none."""

from __future__ import annotations

import json
import re
from typing import Any

from training.graders import Grader

_FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?```$", re.DOTALL)
NOTHING: Any = object()
"""Where there is no JSON; a JSON null is None."""


def json_value(text: str) -> Any:
    """The JSON value that the whole text is (a code fence around it is forgiven), or NOTHING."""
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(fenced.group(1) if fenced else stripped, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def is_structured(text: str) -> bool:
    """Whether a text is a JSON object or array."""
    return isinstance(json_value(text), dict | list)


def same(a: Any, b: Any) -> bool:
    """Equality of JSON values: true is not 1, but 1 is 1.0; spaces around texts don't matter."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str) and isinstance(b, str):
        return a.strip() == b.strip()
    return bool(a == b)


def grade(answer: str, reference: str) -> float:
    """Right fields / all fields of either object; for anything but objects 1 when equal, else 0."""
    wanted, got = json_value(reference), json_value(answer)
    if not isinstance(wanted, dict):
        return float(wanted is not NOTHING and same(got, wanted))
    if not isinstance(got, dict):
        return 0.0
    names = wanted.keys() | got.keys()
    right = sum(same(got.get(name, NOTHING), wanted.get(name, NOTHING)) for name in names)
    return right / len(names) if names else 1.0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


GRADER = Grader("json_fields", "share of the fields of a JSON object that are right", grade)
