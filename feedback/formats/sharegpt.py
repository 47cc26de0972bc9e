"""ShareGPT's files: {"conversations": [{"from": "human", "value": ...}, ...]}, and their form for preferences."""

from __future__ import annotations

import json
from typing import Any

from feedback.formats import Row
from feedback.formats.chat import answer, message, turns
from infra.artifact import key_of


def recognises(row: Row) -> bool:
    """By its list of conversations."""
    return isinstance(row.get("conversations"), list)


def rows(row: Row) -> list[dict[str, Any]]:
    """One row for each answer, or one preference where `chosen` and `rejected` are given."""
    messages: list[dict[str, Any]] = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    for said in row["conversations"]:
        messages += _function_call(said) or message(said)
    session = str(row.get("id") or "c-" + key_of(messages)[:24])
    more: dict[str, Any] = {"session": session} | ({"tools": row["tools"]} if row.get("tools") else {})
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return [{"messages": messages, "chosen": _text(row["chosen"]), "rejected": _text(row["rejected"]), **more}]
    lessons = turns(messages)
    if not lessons:
        raise ValueError(
            "no answer in words to learn: nobody in `conversations` is gpt or assistant and says something"
        )
    return [{"messages": before, "reference": text, **more} for before, text in lessons]


def _function_call(said: Any) -> list[dict[str, Any]]:
    """LLaMA-Factory's turns from `function_call`, whose value is JSON text."""
    if not isinstance(said, dict) or said.get("from") != "function_call":
        return []
    call = json.loads(said["value"])
    calls = call if isinstance(call, list) else [call]
    return message({"role": "assistant", "content": "", "tool_calls": calls})


def _text(said: Any) -> str:
    return str(said["value"]) if isinstance(said, dict) and "value" in said else answer(said)
