"""Calls of tools in an answer that came in pieces, and an answer with calls as one text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def assembled(deltas: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The whole calls that an OpenAI stream's deltas make: of each index the names as they came, arguments joined."""
    calls: dict[Any, dict[str, Any]] = {}
    for delta in deltas:
        call = calls.setdefault(delta.get("index", len(calls)), {})
        for name, value in delta.items():
            if name == "function" and isinstance(value, Mapping):
                function = call.setdefault("function", {"arguments": ""})
                function["arguments"] += value.get("arguments") or ""
                function |= {key: inner for key, inner in value.items() if key != "arguments" and inner is not None}
            elif name != "index" and value is not None:
                call[name] = value
    return list(calls.values())


def answer_text(content: object, calls: Iterable[Mapping[str, Any]]) -> str:
    """What was said, then each call as JSON on a line of its own."""
    said = [str(content)] if content else []
    return "\n".join([*said, *(json.dumps(call, ensure_ascii=False) for call in calls)])
