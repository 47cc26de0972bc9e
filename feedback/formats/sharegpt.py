"""Convert ShareGPT's files: {"conversations": [{"from": "human", "value": ...}, ...]}, also those of preferences."""

from __future__ import annotations

import json
from typing import Any

from feedback.formats import Cells, Chat, Row
from feedback.formats.chat import answer, message, turns
from infra.artifact import key_of


def recognises(row: Row) -> bool:
    """Recognise it by its list of conversations."""
    return isinstance(row.get("conversations"), list)


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one row for each answer, or one preference where `chosen` and `rejected` are given."""
    messages: Chat = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    for turn in row["conversations"]:
        messages += _function_call(turn) or message(turn)
    session = str(row.get("id") or "c-" + key_of(messages)[:24])
    more: Cells = {"session": session} | ({"tools": row["tools"]} if row.get("tools") else {})
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return [{"messages": messages, "chosen": _text(row["chosen"]), "rejected": _text(row["rejected"]), **more}]
    lessons = turns(messages)
    if not lessons:
        raise ValueError(
            "no answer in words to learn: nobody in `conversations` is gpt or assistant and says something"
        )
    return [{"messages": before, "reference": text, **more} for before, text in lessons]


def _function_call(turn: Any) -> Chat:
    """LLaMA-Factory's turns from `function_call`, whose value is JSON text."""
    if not isinstance(turn, dict) or turn.get("from") != "function_call":
        return []
    call = json.loads(turn["value"])
    calls = call if isinstance(call, list) else [call]
    return message({"role": "assistant", "content": "", "tool_calls": calls})


def _text(turn: Any) -> str:
    return str(turn["value"]) if isinstance(turn, dict) and "value" in turn else answer(turn)
