"""Where MLflow delivers its webhook: verified, then counted, so that a controller looks at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine

from deploy.engines.protocol import ApiError
from deploy.gateway.database.query_executor import Reach
from deploy.registry.webhook import HOOK_SECRET, PATH, HookRefused, knock, verify

LIMIT = 65_536


def add_mlflow_hook(
    app: FastAPI,
    database: Engine,
    secret: str | None,
    read_body: Callable[[Request, int], Awaitable[bytes]],
    reach: Reach,
) -> None:
    """Serve the webhook's address; without a secret everything is refused.

    Args:
        read_body: (request, most bytes) -> its body.
    """

    @app.post(PATH, include_in_schema=False)
    async def mlflow_hook(request: Request) -> JSONResponse:
        """MLflow's webhook, by its signature: the controller looks at the aliases now."""
        if not secret:
            raise ApiError(403, f"MLflow's webhook has no secret here; set {HOOK_SECRET}", kind="permission_error")
        body = await read_body(request, LIMIT)
        try:
            verify(request.headers, body, secret)
        except HookRefused as error:
            raise ApiError(401, str(error), kind="authentication_error") from error
        await reach.ask(knock, database)
        return JSONResponse({"status": "ok"})
