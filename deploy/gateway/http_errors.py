"""Answer errors of the gateway in HTTP, in OpenAI's form."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from deploy.engines.protocol import ApiError
from deploy.gateway.database.query_executor import AWAY
from infra.database.errors import OTHER_TABLES, in_short, is_away, is_of_other_tables
from infra.errors import RatchetError, Unavailable

log = logging.getLogger(__name__)


def add_failures(app: FastAPI) -> None:
    """Have every error answered in OpenAI's form."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code, error.headers)

    async def failed(_: Request, error: Exception) -> JSONResponse:
        return _failure(error)

    app.add_exception_handler(RatchetError, failed)
    app.add_exception_handler(SQLAlchemyError, failed)


def _failure(error: Exception) -> JSONResponse:
    """What cannot be done now, and what only a person can mend. What a database said itself is for the log."""
    if isinstance(error, RatchetError):
        what, retry = str(error), 1 if isinstance(error, Unavailable) else None
    elif is_away(error):
        what, retry = AWAY, 1
    elif is_of_other_tables(error):
        what, retry = OTHER_TABLES, 60
    else:
        what, retry = "the database refuses it; the gateway's log says why", None
    if not isinstance(error, Unavailable):
        log.error("a request failed: %s", in_short(error))
    headers = {"Retry-After": str(retry)} if retry is not None else None
    return JSONResponse(ApiError(503, what, kind="server_error").body, 503, headers=headers)
