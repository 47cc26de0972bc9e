"""The gateway's OpenAPI: what it takes and gives, exactly, so that clients can be made and checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from deploy.config import GatewayJob

_STRING: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def _object(properties: Mapping[str, Any], *required: str, closed: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if required:
        found["required"] = list(required)
    if closed:
        found["additionalProperties"] = False
    return found


def _either(*kinds: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(kinds)}


def _maybe(kind: dict[str, Any]) -> dict[str, Any]:
    return _either(kind, {"type": "null"})


_ERROR = _object(
    {
        "error": _object(
            {"message": _STRING, "type": _STRING, "param": _maybe(_STRING), "code": _maybe(_STRING)},
            *("message", "type"),
        )
    },
    "error",
)
_NAMES = _object({"interaction_id": _STRING, "version": _STRING}, "interaction_id", "version")


def _chat_request(names: list[str], *, streams: bool) -> dict[str, Any]:
    part = _object({"type": {"const": "text"}, "text": _STRING}, "type")
    message = _object(
        {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": _either(_STRING, {"type": "array", "items": part}, {"type": "null"}),
            "name": _maybe(_STRING),
        },
        "role",
    )
    stop = {"type": "array", "items": _STRING, "maxItems": 16}
    return _object(
        {
            "model": {"enum": names},
            "messages": {"type": "array", "items": message, "minItems": 1},
            "stream": {"type": "boolean"} if streams else {"const": False},
            "stream_options": _maybe(_object({"include_usage": {"type": "boolean"}})),
            "temperature": _maybe({"type": "number", "minimum": 0, "maximum": 2}),
            "top_p": _maybe({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
            "seed": _maybe({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
            "stop": _either(_STRING, stop, {"type": "null"}),
            "max_tokens": _maybe({"type": "integer", "minimum": 0, "maximum": 10_000_000}),
            "max_completion_tokens": _maybe({"type": "integer", "minimum": 1, "maximum": 10_000_000}),
            "n": {"enum": [1, None]},
            "user": _maybe({"type": "string", "maxLength": 200}),
            "tools": {"enum": [None, []]},
            "logprobs": {"enum": [None, False]},
            "response_format": _maybe(_object({"type": {"const": "text"}}, "type")),
        },
        *("model", "messages"),
    )


def _feedback_request() -> dict[str, Any]:
    common = {
        "interaction_id": {"type": "string", "minLength": 1, "maxLength": 200},
        "event_id": _maybe({"type": "string", "minLength": 1, "maxLength": 200}),
        "user": _maybe({"type": "string", "maxLength": 200}),
        "comment": _maybe(_STRING),
    }
    score = {"type": "number", "minimum": 0, "maximum": 5}
    kinds: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
        "thumb": ({"up": {"type": "boolean"}}, ("up",)),
        "rating": ({"score": score, "scale": {"type": "number", "minimum": 5}}, ("score",)),
        "edit": ({"text": _STRING}, ("text",)),
        "preference": ({"chosen": _STRING, "rejected": _STRING}, ("chosen", "rejected")),
        "reference": (
            {"text": _STRING, "grader": _maybe({"type": "string", "minLength": 1, "maxLength": 200})},
            ("text",),
        ),
    }
    return {
        "oneOf": [
            _object({**common, "kind": {"const": kind}, **own}, "interaction_id", "kind", *needed, closed=True)
            for kind, (own, needed) in kinds.items()
        ]
    }


def _answer() -> dict[str, Any]:
    message = _object({"role": {"const": "assistant"}, "content": _maybe(_STRING)}, "role", "content")
    choice = _object({"index": _COUNT, "message": message, "finish_reason": _STRING}, "index", "message")
    usage = _object(
        {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT},
        *("prompt_tokens", "completion_tokens", "total_tokens"),
    )
    return _object(
        {
            "id": _STRING,
            "object": {"const": "chat.completion"},
            "created": _COUNT,
            "model": _STRING,
            "choices": {"type": "array", "items": choice, "minItems": 1},
            "usage": usage,
            "ratchet": _NAMES,
        },
        *("id", "object", "model", "choices", "usage", "ratchet"),
    )


def _json(schema: dict[str, Any], about: str) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


_REFUSALS = {
    "400": "the request is wrong; the message says what",
    "401": "no valid API key",
    "403": "the key lacks the scope",
    "413": "the body is too large",
    "429": "too many requests; Retry-After says when to come again",
    "503": "it cannot be answered or stored now; Retry-After says when to come again",
}


def _operation(schema: dict[str, Any], ok: Mapping[str, dict[str, Any]], *more: str) -> dict[str, Any]:
    refusals = {status: _json(_ERROR, about) for status, about in _REFUSALS.items()}
    refusals |= dict.fromkeys(more, _json(_ERROR, "there is none of that name"))
    return {"requestBody": _body(schema), "responses": {**ok, **refusals}, "security": [{"key": []}]}


def describe(app: FastAPI, job: GatewayJob) -> None:
    """Give the application its OpenAPI document, at /openapi.json."""
    names = [job.pipeline, "champion"]
    answer = _json(_answer(), "the answer, stored before it is given")
    answer["content"]["text/event-stream"] = {"schema": _object({"data": _STRING}, "data")}
    pair = _object({"interaction_id": _STRING, "content": _STRING, "finish_reason": _STRING}, "interaction_id")
    arena = _object(
        {"arena_id": _STRING, "answers": {"type": "array", "items": pair, "minItems": 2, "maxItems": 2}}, "arena_id"
    )
    receipt = _object({"status": {"enum": ["stored", "duplicate", "parked"]}}, "status")
    choice = _object(
        {
            "arena_id": {"type": "string", "minLength": 1, "maxLength": 64},
            "winner": {"enum": ["first", "second", "tie"]},
            "user": _maybe({"type": "string", "maxLength": 200}),
        },
        *("arena_id", "winner"),
        closed=True,
    )
    described: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": _operation(_chat_request(names, streams=True), {"200": answer}, "404"),
        "/v1/arena": _operation(_chat_request(names, streams=False), {"200": _json(arena, "two answers")}, "404"),
        "/v1/arena/choice": _operation(choice, {"200": _json(receipt, "kept")}, "404"),
        "/v1/feedback": _operation(
            _feedback_request(),
            {
                "200": _json(receipt, "kept"),
                "202": _json(receipt, "kept; it waits for its interaction, which is not known yet"),
            },
        ),
    }

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, routes=app.routes)
            found.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            # The console's API serves its own page and may change with it.
            found["paths"] = {path: one for path, one in found["paths"].items() if not path.startswith("/console")}
            for path, operation in described.items():
                found["paths"][path]["post"].update(operation)
            listed = found["paths"]["/v1/models"]["get"]
            listed["security"] = [{"key": []}]
            for status in ("401", "403", "429", "503"):
                listed["responses"][status] = _json(_ERROR, _REFUSALS[status])
            ready = found["paths"]["/readyz"]["get"]["responses"]
            ready["503"] = _json(_object({"missing": {"type": "array"}}, "missing"), "what is missing")
            found["paths"]["/metrics"]["get"]["responses"]["200"] = {
                "description": "Prometheus text",
                "content": {"text/plain": {"schema": _STRING}},
            }
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
