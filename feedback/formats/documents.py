"""Convert texts on their own, for continued pretraining: {"text": ...}."""

from __future__ import annotations

from feedback.formats import Cells, Row


def recognises(row: Row) -> bool:
    """Recognise a text and nothing to answer."""
    return isinstance(row.get("text"), str) and not row.keys() & {"prompt", "messages", "input", "question", "label"}


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one document."""
    return [{"document": row["text"]}]
