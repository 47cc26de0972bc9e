"""Texts on their own, for continued pretraining: {"text": ...}."""

from __future__ import annotations

from typing import Any

from feedback.formats import Row


def recognises(row: Row) -> bool:
    """A text and nothing to answer."""
    return isinstance(row.get("text"), str) and not row.keys() & {"prompt", "messages", "input", "question", "label"}


def rows(row: Row) -> list[dict[str, Any]]:
    """One document."""
    return [{"document": row["text"]}]
