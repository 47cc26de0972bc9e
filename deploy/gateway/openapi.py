"""Describe the gateway in OpenAPI by the models that parse its requests, so that clients can be checked against it.

The document, at /openapi.json, says what is always taken. Where the server takes more (an upstream may understand
tools), the models say so beside the field.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi.security import HTTPBearer
from pydantic import BaseModel, TypeAdapter

from deploy.engines.answers import ChatAnswer

BEARER = HTTPBearer(scheme_name="key", auto_error=False)
"""Documents that an operation needs a key; `Gatekeeper` checks it."""


class ErrorDetails(BaseModel):
    """What is wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetails


class Origin(BaseModel):
    """Which interaction this is, and which version answered."""

    interaction_id: str
    version: str


class GatewayAnswer(ChatAnswer):
    """A chat answer, stored before it is given."""

    ratchet: Origin


class ReceiptBody(BaseModel):
    """What became of feedback."""

    status: Literal["stored", "duplicate", "parked"]


_REFUSALS = {
    400: "the request is wrong; the message says what",
    401: "no valid API key",
    403: "the key lacks the scope",
    413: "the body is too large",
    429: "too many requests; Retry-After says when to come again",
    503: "it cannot be answered or stored now; Retry-After says when to come again",
}


def refusals(*more: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that an operation with a body answers, and `more`: 404."""
    return {
        status: {"model": ErrorBody, "description": _REFUSALS.get(status, "there is none of that name")}
        for status in (*_REFUSALS, *more)
    }


def request_body(parsed_by: Any, **properties: Any) -> dict[str, Any]:
    """Describe the body that a route parses by itself, for `openapi_extra`.

    Args:
        parsed_by: the pydantic model, or a union of them, that parses it.
        properties: name -> schema, where this gateway takes less than the model.
    """
    schema = _inlined(TypeAdapter(parsed_by).json_schema(), {})
    if properties:
        schema["properties"] = {**schema["properties"], **properties}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without `$ref`: within a document they would lead nowhere. None of ours refers to itself."""
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    definitions = schema.get("$defs", definitions)
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {
        name: _inlined(value, definitions) for name, value in schema.items() if name not in ("$defs", "discriminator")
    }
