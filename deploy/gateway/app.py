"""Build the gateway's HTTP application out of its routers.

POST /v1/chat/completions   GET /v1/models   POST /v1/feedback   POST /v1/arena /v1/arena/choice
GET /healthz /readyz /metrics /openapi.json
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from deploy.config import GatewayJob
from deploy.gateway.components import Gateway
from deploy.gateway.console.mount import add_console
from deploy.gateway.http_errors import add_failures
from deploy.gateway.routers.arena import arena_router
from deploy.gateway.routers.chat import chat_router
from deploy.gateway.routers.feedback import feedback_router
from deploy.gateway.routers.operations import operations_router
from deploy.gateway.telemetry.metrics import MetricsMiddleware
from deploy.gateway.telemetry.tracing import TracingMiddleware

__all__ = ["build_app"]


def build_app(job: GatewayJob, *, engine_key: str, user_salt: str) -> FastAPI:
    """Build the application; it connects when it starts."""
    gateway = Gateway(job, engine_key=engine_key, user_salt=user_salt)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    app = FastAPI(title="Ratchet gateway", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(MetricsMiddleware, metrics=gateway.metrics)
    app.add_middleware(TracingMiddleware)
    add_failures(app)
    for make_router in (chat_router, arena_router, feedback_router, operations_router):
        app.include_router(make_router(gateway))
    add_console(app, job, database=gateway.pages, keeper=gateway.keeper, loading=gateway.engines)
    for route in app.routes:
        # The console's API serves its own page and may change with it.
        if isinstance(route, APIRoute) and route.path.startswith("/console"):
            route.include_in_schema = False
    return app
