"""Read JSON out of answers, in one way for all graders, metrics and judges."""

from __future__ import annotations

import json
import re
from typing import Any

_FENCE = re.compile(r"^```(?:json)?\s*\n(.*?)\n?```$", re.DOTALL)
NOTHING: Any = object()
"""Returned where there is no JSON; a JSON null is None."""


def json_value(text: str) -> Any:
    """Parse the JSON value that the whole text is (a code fence around it is forgiven), or NOTHING.

    Duplicate keys and NaN are refused: readers disagree about what they mean.
    """
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        return json.loads(
            fenced.group(1) if fenced else stripped, object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        return NOTHING


def is_structured(text: str) -> bool:
    """Tell whether the text is a JSON object or array: a bare number or word is taken for prose."""
    return isinstance(json_value(text), dict | list)


def same(a: Any, b: Any) -> bool:
    """Compare JSON values: true is not 1, but 1 is 1.0; order of keys does not matter, order of lists does."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str) and isinstance(b, str):
        return a.strip() == b.strip()
    return bool(a == b)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
