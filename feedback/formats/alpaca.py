"""Alpaca's files: {"instruction", "input", "output"}, and LLaMA-Factory's additions (system, history, a preference)."""

from __future__ import annotations

from typing import Any

from feedback.formats import Row


def recognises(row: Row) -> bool:
    """An instruction with an output or a pair."""
    return "instruction" in row and bool(row.keys() & {"output", "chosen"})


def rows(row: Row) -> list[dict[str, Any]]:
    """A reference, and a preference where there is one."""
    messages: list[dict[str, Any]] = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    for question, reply in row.get("history") or ():
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    parts = [text for text in (row["instruction"], row.get("input")) if text]
    messages.append({"role": "user", "content": "\n\n".join(parts)})
    made: dict[str, Any] = {"messages": messages}
    for name, column in (("reference", "output"), ("chosen", "chosen"), ("rejected", "rejected")):
        if row.get(column) not in (None, ""):
            made[name] = row[column]
    return [made]
