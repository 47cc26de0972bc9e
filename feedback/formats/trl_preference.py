"""Convert TRL's preference files: {"prompt", "chosen", "rejected"}, text or messages, the prompt apart or in both."""

from __future__ import annotations

from feedback.formats import Cells, Row
from feedback.formats.chat import completion_text, message, prompt_messages


def recognises(row: Row) -> bool:
    """Recognise a pair."""
    return "chosen" in row and "rejected" in row


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one preference. Without a prompt, it is what both conversations begin with."""
    chosen, rejected = row["chosen"], row["rejected"]
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    if row.get("prompt") is not None:
        return [
            {
                "messages": prompt_messages(row["prompt"]),
                "chosen": completion_text(chosen),
                "rejected": completion_text(rejected),
                **tools,
            }
        ]
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise ValueError(
            "chosen and rejected are texts and there is no prompt; expected a prompt, or lists of messages"
        )
    one, other = ([m for turn in side for m in message(turn)] for side in (chosen, rejected))
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    if not same or same != len(one) - 1 or same != len(other) - 1:
        raise ValueError("chosen and rejected should differ in their last message only")
    return [{"messages": one[:same], "chosen": one[-1]["content"], "rejected": other[-1]["content"], **tools}]
