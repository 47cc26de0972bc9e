"""Convert OpenAI's preference files: {"input": {"messages"}, "preferred_output": [...], "non_preferred_output"}."""

from __future__ import annotations

from feedback.formats import Cells, Row
from feedback.formats.chat import answer, conversation


def recognises(row: Row) -> bool:
    """Recognise it by its own names of the two outputs."""
    return "preferred_output" in row and "non_preferred_output" in row


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one preference."""
    given = row.get("input")
    tools = {"tools": given["tools"]} if isinstance(given, dict) and given.get("tools") else {}
    chosen, rejected = answer(row["preferred_output"]), answer(row["non_preferred_output"])
    return [{"messages": conversation(given), "chosen": chosen, "rejected": rejected, **tools}]
