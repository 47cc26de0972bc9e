"""Read a request: its body, never more than a limit, and who sends it."""

from __future__ import annotations

from fastapi import Request

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.chat.exchange import Caller, checked_name


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body, never more than `limit` bytes of it.

    Raises:
        ApiError: 413, it is larger.
    """
    too_large = ApiError(
        413, f"the body is larger than {limit} bytes; send less, or ask for a higher limit", code="body_too_large"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def user_of(request: Request) -> str | None:
    """Return the end user that a header names."""
    return checked_name(request.headers.get("x-ratchet-user"), "user")


def caller_of(request: Request, key: ApiKey, chat: ChatRequest) -> Caller:
    """Return who asks, by headers and body."""
    return Caller(
        key=key,
        user=user_of(request) or chat.user or None,
        session=checked_name(request.headers.get("x-ratchet-session"), "session"),
        task=checked_name(request.headers.get("x-ratchet-task"), "task"),
    )
