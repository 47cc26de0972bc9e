"""Convert exports of LangSmith: runs with their feedback, feedback on its own, and datasets (inputs and outputs).

Feedback that a model gave (feedback_source.type `model`) is not what people said, and runs of tools, templates, parsers
and searches are no answers: both are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from feedback.formats import Cells, Row
from feedback.formats.chat import answer, conversation, scored

_ANSWERS = ("llm", "chain")
"""Types of runs that answer somebody."""


def recognises(row: Row) -> bool:
    """Recognise a run, feedback on one, or an example of a dataset."""
    names = row.keys()
    return ("inputs" in names and "outputs" in names) or ("run_id" in names and "key" in names)


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to the run with one row a feedback, the feedback alone, or an example's reference."""
    if "inputs" not in row:
        return _feedback(row, str(row["run_id"]), {}, scale)
    if row.get("run_type", "chain") not in _ANSWERS:
        return []
    messages = conversation(row["inputs"])
    if "run_type" not in row and "start_time" not in row:  # an example of a dataset
        return [{"messages": messages, "reference": answer(row["outputs"]), "created_at": row.get("created_at")}]
    extra = row.get("extra")
    metadata: Row = (extra.get("metadata") if isinstance(extra, Mapping) else None) or {}
    invoked = (extra.get("invocation_params") if isinstance(extra, Mapping) else None) or {}
    base: Cells = {
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
    given = row.get("feedback") or []
    about = base["interaction_id"]
    return [made for f in given if isinstance(f, Mapping) for made in _feedback(f, about, base, scale)] or [base]


def _feedback(event: Row, about: str, base: Cells, scale: float) -> list[Cells]:
    source = event.get("feedback_source")
    if isinstance(source, Mapping) and source.get("type") == "model":
        return []
    score = event.get("score") if event.get("score") is not None else event.get("value")
    every = [scored(str(event.get("key", "")), score, scale=scale)]
    if event.get("correction") not in (None, "", {}):
        every.append({"edit": answer(event["correction"])})
    user = (source.get("user_id") if isinstance(source, Mapping) else None) or event.get("user_id") or base.get("user")
    more = {
        "actor": user,
        "comment": event.get("comment"),
        "created_at": event.get("created_at") or base.get("created_at"),
    }
    made = []
    for cells in every:
        if cells:
            identity = f"ls-{event['id']}/{next(iter(cells))}" if event.get("id") else None
            made.append({**base, "interaction_id": about, "event_id": identity, **cells, **more})
    return made
