"""Turn what an engine refuses into an answer for the client, and let unfinished answers be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from deploy.engines.client import EngineRefusal
from deploy.engines.protocol import ApiError
from deploy.gateway.database.background import log_failure
from infra.errors import RatchetError


def unavailable(message: str) -> ApiError:
    """Make a 503 that asks to come again."""
    return ApiError(503, message, kind="server_error", headers={"Retry-After": "1"})


def api_error(error: RatchetError | ApiError) -> ApiError:
    """Translate what one of our own engines did into HTTP; its own troubles are ours."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, EngineRefusal):
        return unavailable(str(error))
    return forward(error) if error.status in (400, 429) else unavailable(error.message)


def upstream_error(error: RatchetError | ApiError) -> ApiError:
    """Translate what the upstream champion did: its refusals, status and all; its failures as 503."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, EngineRefusal):
        return unavailable(str(error))
    if error.status >= 500:
        return unavailable(error.message)
    if error.status in (401, 403):
        # Our key, not the caller's: nothing the caller could mend.
        return unavailable(f"the upstream champion refuses our key: {error.message}; check RATCHET_UPSTREAM_KEY")
    return forward(error)


def forward(refusal: EngineRefusal) -> ApiError:
    """Pass a refusal on as it was given."""
    error = refusal.body.get("error")
    details = error if isinstance(error, dict) else {}
    retry = {"Retry-After": refusal.headers["retry-after"]} if "retry-after" in refusal.headers else {}
    return ApiError(
        refusal.status,
        refusal.message,
        kind=str(details.get("type") or "invalid_request_error"),
        code=details.get("code"),
        param=details.get("param"),
        headers=retry,
    )


_unfinished: set[asyncio.Task[None]] = set()


def finish_later(work: Coroutine[object, object, None]) -> None:
    """Let a task run on after whoever waited for it has left."""
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    log_failure(task, "keeping an answer that its reader left")
