"""Exports of LangSmith: runs with their feedback, feedback in a file of its own, and datasets (inputs and outputs).

Feedback that a model gave (feedback_source.type `model`) is not what people said, and runs of tools, templates, parsers
and searches are no answers: both are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedback.formats import Row
from feedback.formats.chat import answer, conversation, scored

_ANSWERS = ("llm", "chain")
"""Types of runs that answer somebody."""


def recognises(row: Row) -> bool:
    """A run, feedback on one, or an example of a dataset."""
    names = row.keys()
    return ("inputs" in names and "outputs" in names) or ("run_id" in names and "key" in names)


def rows(row: Row, *, scale: float = 5) -> list[dict[str, Any]]:
    """The run with one row a feedback, the feedback alone, or an example's reference."""
    if "inputs" not in row:
        return _feedback(row, str(row["run_id"]), {}, scale)
    if row.get("run_type", "chain") not in _ANSWERS:
        return []
    messages = conversation(row["inputs"])
    if "run_type" not in row and "start_time" not in row:  # an example of a dataset
        return [{"messages": messages, "reference": answer(row["outputs"]), "created_at": row.get("created_at")}]
    extra = row.get("extra")
    metadata: Mapping[str, Any] = (extra.get("metadata") if isinstance(extra, Mapping) else None) or {}
    invoked = (extra.get("invocation_params") if isinstance(extra, Mapping) else None) or {}
    base: dict[str, Any] = {
        "interaction_id": str(row["id"]),
        "tools": invoked.get("tools"),
        "messages": messages,
        "answer": answer(row["outputs"]),
        "user": metadata.get("user_id"),
        "session": metadata.get("session_id") or metadata.get("thread_id") or metadata.get("conversation_id"),
        "version": metadata.get("model_version") or metadata.get("revision_id") or metadata.get("ls_model_name"),
        "task": row.get("name"),
        "created_at": row.get("start_time"),
    }
    said = row.get("feedback") or []
    about = base["interaction_id"]
    found = [made for one in said if isinstance(one, Mapping) for made in _feedback(one, about, base, scale)]
    return found or [base]


def _feedback(said: Row, about: str, base: dict[str, Any], scale: float) -> list[dict[str, Any]]:
    source = said.get("feedback_source")
    if isinstance(source, Mapping) and source.get("type") == "model":
        return []
    score = said.get("score") if said.get("score") is not None else said.get("value")
    found = [scored(str(said.get("key", "")), score, scale=scale)]
    if said.get("correction") not in (None, "", {}):
        found.append({"edit": answer(said["correction"])})
    user = (source.get("user_id") if isinstance(source, Mapping) else None) or said.get("user_id") or base.get("user")
    more = {
        "actor": user,
        "comment": said.get("comment"),
        "created_at": said.get("created_at") or base.get("created_at"),
    }
    made = []
    for cells in found:
        if cells:
            identity = f"ls-{said['id']}/{next(iter(cells))}" if said.get("id") else None
            made.append({**base, "interaction_id": about, "event_id": identity, **cells, **more})
    return made
