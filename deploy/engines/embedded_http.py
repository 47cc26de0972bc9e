"""Guard the embedded engine's routes with its key, and answer errors in OpenAI's form."""

from __future__ import annotations

import hmac

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.engines import protocol
from deploy.engines.protocol import ApiError
from deploy.engines.worker import Busy
from infra.errors import Conflict, CorruptArtifact, NotFound, Unavailable, UserError


class Bearer:
    """Lets requests with the key through, and anybody to /health. Plain ASGI: it stands in no stream's way."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            sent = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(sent, self._expected):
                error = ApiError(401, "wrong or no bearer key", kind="authentication_error", code="invalid_api_key")
                await JSONResponse(error.body, error.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Have every error answered in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> JSONResponse:
        error = ApiError(429, "the engine is busy; try again", kind="rate_limit_error", code="engine_busy")
        return JSONResponse(error.body, error.status, headers={"Retry-After": "1"})

    for error_type, status in (
        (NotFound, 404), (Conflict, 409), (CorruptArtifact, 422), (Unavailable, 503), (UserError, 400)
    ):  # fmt: skip
        _answer_errors(app, error_type, status)


def _answer_errors(app: FastAPI, error_type: type[Exception], status: int) -> None:
    async def handle(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, UserError) and status == 400:
            answer = protocol.refused(error)
        else:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            answer = ApiError(status, str(error), kind=kind)
        headers = {"Retry-After": "1"} if status == 503 else {}
        return JSONResponse(answer.body, answer.status, headers=headers)

    app.add_exception_handler(error_type, handle)
