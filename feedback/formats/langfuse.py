"""Convert exports of Langfuse: traces or observations with their scores, or scores in a file of their own.

Rows of the project's table export (camelCase) and of the blob-storage export (snake_case) are both read, and scores of
the API's third version, which name their subject. A trace and each of its observations is an interaction of its own id,
and a score is about the one it names: the observation, else the trace. Scores that an evaluator gave (source EVAL) are
not what people said, those on a whole session are about no one answer, and observations of tools and the like are no
answers: left out.
"""

from __future__ import annotations

from typing import Any

from feedback.formats import Cells, Row
from feedback.formats.chat import answer, conversation, scored

_NO_ANSWER = frozenset({"TOOL", "RETRIEVER", "EMBEDDING", "EVALUATOR", "GUARDRAIL", "EVENT"})
"""Types of observations that answer nobody."""


def recognises(row: Row) -> bool:
    """Recognise a trace with Langfuse's names, or a score of one."""
    names = row.keys()
    trace = {"input", "output"} <= names and bool(
        names & {"userId", "user_id", "sessionId", "session_id", "scores", "htmlPath", "traceId", "trace_id"}
    )
    return trace or ({"name", "value"} <= names and (bool(names & {"traceId", "trace_id"}) or _kind_of(row) != ""))


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to the interaction with one row a score, or the score alone."""
    if "input" not in row:
        subject = _subject(row)
        return _score(row, subject, {}, scale) if subject else []
    if str(row.get("type", "")).upper() in _NO_ANSWER:
        return []
    about = str(row["id"])
    base = {
        "interaction_id": about,
        "messages": conversation(row["input"]),
        "answer": answer(row["output"]),
        "user": _get(row, "userId", "user_id"),
        "session": _get(row, "sessionId", "session_id"),
        "version": row.get("version") or row.get("release") or row.get("model"),
        "task": row.get("name"),
        "created_at": _get(row, "timestamp", "startTime", "start_time"),
    }
    given = row.get("scores") or []
    if isinstance(given, dict):  # the table's export: name -> value(s)
        given = [
            {"name": name, "value": v} for name, vs in given.items() for v in (vs if isinstance(vs, list) else [vs])
        ]
    own, others = [], []
    for score in (s for s in given if isinstance(s, dict)):
        observation = _get(score, "observationId", "observation_id")
        if observation is None or str(observation) == about:
            own += _score(score, about, base, scale)
        else:  # a trace's scores may be about its observations, whose words are in rows of their own
            others += _score(score, str(observation), {"user": base["user"], "created_at": base["created_at"]}, scale)
    return [*(own or [base]), *others]


def _score(score: Row, about: str, base: Cells, scale: float) -> list[Cells]:
    if str(score.get("source", "")).upper() == "EVAL":
        return []
    name, value = str(score.get("name", "")), score.get("value")
    kind = str(_get(score, "dataType", "data_type") or "").upper()
    text = _get(score, "stringValue", "string_value")
    if kind == "BOOLEAN":
        value = bool(value) if value is not None else text
    elif kind in ("CATEGORICAL", "TEXT", "CORRECTION") and text is not None:
        value = text
    cells = scored("edit" if kind == "CORRECTION" else name, value, scale=scale)
    if not cells:
        return []
    identity = f"lf-{score['id']}" if score.get("id") else None
    person = _get(score, "authorUserId", "author_user_id", "userId", "user_id") or base.get("user")
    at = _get(score, "timestamp", "createdAt", "created_at") or base.get("created_at")
    more = {"event_id": identity, "actor": person, "comment": score.get("comment"), "created_at": at}
    return [{**base, "interaction_id": about, **cells, **more}]


def _kind_of(score: Row) -> str:
    """What a score of the third version is about: trace, observation, session or experiment."""
    subject = score.get("subject")
    return str(subject.get("kind", "")) if isinstance(subject, dict) and subject.get("id") else ""


def _subject(score: Row) -> str | None:
    """The observation, or else the trace, that a score on its own is about; None where it is about neither."""
    kind = _kind_of(score)
    if kind:
        return str(score["subject"]["id"]) if kind in ("trace", "observation") else None
    about = _get(score, "observationId", "observation_id", "traceId", "trace_id")
    return str(about) if about is not None else None


def _get(row: Row, *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
