"""Convert OpenTelemetry GenAI spans in OTLP JSON, as the collector's file exporter writes them, a request a row.

Read are the semantic conventions' `gen_ai.input.messages` and `gen_ai.output.messages` (attributes), the older
message events, and OpenLLMetry's numbered attributes; feedback is the event `gen_ai.evaluation.result`, whose name and
label say what it is. Spans that are no model call are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from feedback.formats import Cells, Chat, Row
from feedback.formats.chat import answer, conversation, message, scored
from feedback.formats.timestamps import event_time_of

_NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(role|content)")


def recognises(row: Row) -> bool:
    """Recognise an export request, or a span on its own."""
    return "resourceSpans" in row or "resource_spans" in row or {"traceId", "spanId", "attributes"} <= row.keys()


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    """Convert to one row for each model call and each word on it."""
    return [made for span in _spans(row) for made in _of_span(span, scale)]


def _spans(row: Row) -> Iterator[Row]:
    if "spanId" in row:
        yield row
        return
    for resource in row.get("resourceSpans") or row.get("resource_spans") or ():
        for scope in resource.get("scopeSpans") or resource.get("scope_spans") or ():
            yield from scope.get("spans") or ()


def _of_span(span: Row, scale: float) -> list[Cells]:
    about = _attributes(span)
    events = [(str(event.get("name", "")), _attributes(event)) for event in span.get("events") or ()]
    prompt, reply = _exchange(about, events)
    if not prompt:
        return []
    at = _time(span.get("endTimeUnixNano") or span.get("startTimeUnixNano"))
    base = {
        "interaction_id": str(about.get("gen_ai.response.id") or f"{span.get('traceId')}-{span.get('spanId')}"),
        "messages": prompt,
        "answer": reply,
        "user": about.get("user.id") or about.get("enduser.id") or about.get("enduser.pseudo.id"),
        "session": about.get("gen_ai.conversation.id") or about.get("session.id"),
        "version": about.get("gen_ai.response.model") or about.get("gen_ai.request.model"),
        "created_at": at,
        "finish_reason": _first(about.get("gen_ai.response.finish_reasons")),
        "tools": about.get("gen_ai.tool.definitions"),
    }
    evaluated = []
    for place, (name, facts) in enumerate(events):
        if name != "gen_ai.evaluation.result":
            continue
        label, score = facts.get("gen_ai.evaluation.score.label"), facts.get("gen_ai.evaluation.score.value")
        named = str(facts.get("gen_ai.evaluation.name", ""))
        cells = scored(named, label if label is not None else score, scale=scale)
        if not cells and score is not None:
            cells = scored(named, score, scale=scale)
        if cells:
            comment = facts.get("gen_ai.evaluation.explanation")
            evaluated.append({**base, **cells, "event_id": f"ot-{base['interaction_id']}-{place}", "comment": comment})
    return evaluated or [base]


def _exchange(about: Row, events: Sequence[tuple[str, Row]]) -> tuple[Chat, str]:
    """(prompt, answer) of a span, by whichever convention it follows; ([], "") where it is no model call."""
    given = about.get("gen_ai.input.messages")
    if given is not None:
        system = about.get("gen_ai.system_instructions")
        before = message({"role": "system", "content": _list(system)}) if system else []
        return [*before, *conversation(given)], _answered(about.get("gen_ai.output.messages"))
    prompt: Chat = []
    reply = ""
    for name, facts in events:
        kind = re.fullmatch(r"gen_ai\.(system|user|assistant|tool)\.message", name)
        if kind is not None:
            prompt += message({"role": kind[1], "content": facts.get("content"), **_calls(facts)})
        elif name == "gen_ai.choice":
            reply = answer(facts.get("message") or facts.get("content") or "")
        elif name in ("gen_ai.content.prompt", "gen_ai.content.completion"):
            text = facts.get(name.replace("content.", ""))
            if name.endswith("prompt"):
                prompt = conversation(text)
            else:
                reply = answer(text)
    if prompt:
        return prompt, reply
    numbered: dict[tuple[str, int], Cells] = {}
    for name, value in about.items():
        part = _NUMBERED.fullmatch(name)
        if part is not None:
            numbered.setdefault((part[1], int(part[2])), {})[part[3]] = value
    for (side, _), turn in sorted(numbered.items()):
        if side == "prompt":
            prompt += message({"role": "user", **turn})
        else:
            reply = str(turn.get("content", ""))
    return prompt, reply


def _answered(given: Any) -> str:
    answers = [m for m in conversation(given) if m["role"] == "assistant"] if given is not None else []
    return str(answers[-1]["content"]) if answers else ""


def _calls(facts: Row) -> Cells:
    calls = {"tool_calls": _list(facts["tool_calls"])} if facts.get("tool_calls") else {}
    return calls | ({"tool_call_id": facts["id"]} if facts.get("id") else {})


def _first(value: Any) -> str | None:
    first = _list(value)
    return str(first[0]) if isinstance(first, list) and first else str(first) if first else None


def _list(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value[:1] == "[" else value


def _attributes(holder: Row) -> Cells:
    """OTLP's list of keys and typed values, as a plain object."""
    return {str(pair["key"]): _value(pair.get("value")) for pair in holder.get("attributes") or ()}


def _value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    for name, inner in value.items():
        if name == "intValue":
            return int(inner)
        if name == "arrayValue":
            return [_value(v) for v in inner.get("values") or ()]
        if name == "kvlistValue":
            return {str(pair["key"]): _value(pair.get("value")) for pair in inner.get("values") or ()}
        return inner
    return None


def _time(nanoseconds: Any) -> str | None:
    return event_time_of(int(nanoseconds) / 1e9).isoformat() if nanoseconds else None
