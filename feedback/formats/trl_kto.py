"""Convert TRL's unpaired preference (KTO) files: {"prompt", "completion", "label"}: whether an answer was good."""

from __future__ import annotations

from feedback.formats import Cells, Row
from feedback.formats.chat import completion_text, prompt_messages


def recognises(row: Row) -> bool:
    """Recognise it by its label."""
    return row.keys() >= {"prompt", "completion", "label"}


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one thumb."""
    if not isinstance(row["label"], bool | int):
        raise ValueError(f"label should be true or false, got {row['label']!r}")
    messages = prompt_messages(row["prompt"])
    return [{"messages": messages, "answer": completion_text(row["completion"]), "thumb": bool(row["label"])}]
