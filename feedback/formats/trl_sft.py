"""Convert TRL's prompt-completion files: {"prompt", "completion"}, as text or messages."""

from __future__ import annotations

from feedback.formats import Cells, Row
from feedback.formats.chat import completion_text, prompt_messages


def recognises(row: Row) -> bool:
    """Recognise a prompt and a completion."""
    return "prompt" in row and "completion" in row


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one reference."""
    return [{"messages": prompt_messages(row["prompt"]), "reference": completion_text(row["completion"])}]
