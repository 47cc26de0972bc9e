"""Convert OpenAI's chat fine-tuning files: {"messages": [...], "tools": [...]}, every answer of the assistant a lesson.

As there, `weight: 0` on a message means it is context only, and tool definitions go with the conversation.
"""

from __future__ import annotations

from feedback.formats import Cells, Chat, Row
from feedback.formats.chat import message, turns
from infra.artifact import key_of


def recognises(row: Row) -> bool:
    """Recognise `messages` and nothing that says what people thought of them."""
    return isinstance(row.get("messages"), list) and not row.keys() & {"chosen", "rejected", "label", "completion"}


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one row for each answer, with what came before it as its prompt; they stay together in a split."""
    messages: Chat = []
    unweighted: set[int] = set()
    for turn in row["messages"]:
        if isinstance(turn, dict) and turn.get("weight") == 0:
            unweighted.add(len(messages))
        messages += message(turn)
    lessons = [(before, text) for before, text in turns(messages) if len(before) not in unweighted]
    if not lessons:
        raise ValueError("no answer in words to learn: the conversation has no assistant message with text and weight")
    session = str(row.get("session") or row.get("id") or "c-" + key_of(messages)[:24])
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return [{"messages": before, "reference": text, "session": session, **tools} for before, text in lessons]
