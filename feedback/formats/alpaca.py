"""Convert Alpaca's files: {"instruction", "input", "output"}, with LLaMA-Factory's system, history and preferences."""

from __future__ import annotations

from feedback.formats import Cells, Chat, Row


def recognises(row: Row) -> bool:
    """Recognise an instruction with an output or a pair."""
    return "instruction" in row and bool(row.keys() & {"output", "chosen"})


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to a reference, and a preference where there is one."""
    messages: Chat = []
    if row.get("system"):
        messages.append({"role": "system", "content": row["system"]})
    for question, reply in row.get("history") or ():
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    parts = [text for text in (row["instruction"], row.get("input")) if text]
    messages.append({"role": "user", "content": "\n\n".join(parts)})
    made: Cells = {"messages": messages}
    for name, column in (("reference", "output"), ("chosen", "chosen"), ("rejected", "rejected")):
        if row.get(column) not in (None, ""):
            made[name] = row[column]
    return [made]
