"""Assemble tool calls from the pieces of a stream, and write an answer with calls as one text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def assembled(deltas: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Assemble the calls that a stream's deltas make: of each index the names as they came, arguments joined."""
    calls: dict[Any, dict[str, Any]] = {}
    for delta in deltas:
        index = delta.get("index")
        call = calls.setdefault(index if isinstance(index, int) else len(calls), {})
        for name, value in delta.items():
            if name == "function":
                value = object_of(value)
                function = call.setdefault("function", {"arguments": ""})
                function["arguments"] += str(value.get("arguments") or "")
                function |= {key: inner for key, inner in value.items() if key != "arguments" and inner is not None}
            elif name != "index" and value is not None:
                call[name] = value
    return list(calls.values())


def objects(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list that somebody else's server or client sent; nothing where it is something else."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def object_of(value: object) -> Mapping[str, Any]:
    """Return the object that was sent; an empty one where it is something else."""
    return value if isinstance(value, Mapping) else {}


def answer_text(content: object, calls: Iterable[Mapping[str, Any]]) -> str:
    """Write the answer as text, then each call as JSON on a line of its own."""
    said = [str(content)] if content else []
    return "\n".join([*said, *(json.dumps(call, ensure_ascii=False) for call in calls)])
