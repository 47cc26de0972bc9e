"""The gateway's HTTP application.

POST /v1/chat/completions   GET /v1/models   POST /v1/feedback   GET /healthz /readyz /metrics
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from deploy.engines.client import AsyncEngineClient, dialect_of
from deploy.engines.protocol import ApiError, ChatRequest, parse
from deploy.gateway.answering import Answering, Caller
from deploy.gateway.assignments import Assignments
from deploy.gateway.auth import Gatekeeper
from deploy.gateway.capture import Capture
from deploy.gateway.console.mount import add_console
from deploy.gateway.feedback_api import read_feedback
from deploy.gateway.loading import Loading
from deploy.gateway.metrics import Counting, Metrics
from deploy.gateway.tables import Tables
from deploy.serving import GatewayJob
from feedback.store import Store
from infra.database import connect, create_tables
from infra.errors import RatchetError, Unavailable

__all__ = ["build_app"]


def build_app(job: GatewayJob, *, engine_key: str, user_salt: str) -> FastAPI:
    """The application; it connects when it starts."""
    serving = job.serving
    dialect = dialect_of(serving.engine)
    metrics = Metrics()
    database = connect(job.database_url)
    store = Store(database)
    client = AsyncEngineClient(job.engine_url, engine_key, dialect=dialect, timeout=serving.request_seconds)
    loading = Loading(
        url=job.engine_url,
        key=engine_key,
        dialect=dialect,
        versions_dir=job.versions_dir,
        base_version=job.base_name,
        base_name=serving.base_model_name or job.base_name,
        tolerance=serving.parity_tolerance,
    )
    tables = Tables(database, loading, shared=job.tenant, base=job.base_name, poll_seconds=serving.poll_seconds)
    keeper = Gatekeeper(database, requests_per_minute=serving.requests_per_minute)
    capture = Capture(database)
    answering = Answering(
        job,
        client=client,
        tables=tables,
        assignments=Assignments(database),
        loading=loading,
        capture=capture,
        metrics=metrics,
        salt=user_salt,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(create_tables, database)
        capture.start()
        await tables.start()
        yield
        await tables.stop()
        await capture.stop()
        await client.close()
        loading.close()
        database.dispose()

    app = FastAPI(title="Ratchet gateway", lifespan=lifespan, docs_url=None, redoc_url=None)

    app.add_middleware(Counting, metrics=metrics)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(ApiError(error.status_code, str(error.detail)).body, error.status_code)

    async def away(_: Request, error: Exception) -> JSONResponse:
        what = str(error) if isinstance(error, RatchetError) else "the database does not answer; try again"
        return JSONResponse(ApiError(503, what, kind="server_error").body, 503, headers={"Retry-After": "1"})

    app.add_exception_handler(Unavailable, away)
    app.add_exception_handler(SQLAlchemyError, away)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        key = await keeper.admit(request.headers.get("authorization"), "chat")
        asked: ChatRequest = parse(ChatRequest, await _body(request, serving.max_body_bytes))
        asked.check()
        caller = Caller(
            key=key,
            user=_named(request.headers.get("x-ratchet-user") or asked.user, "user"),
            session=_named(request.headers.get("x-ratchet-session"), "session"),
            task=_named(request.headers.get("x-ratchet-task"), "task"),
        )
        exchange = await answering.begin(asked, caller)
        if not asked.stream:
            return JSONResponse(await answering.whole(exchange), headers=exchange.headers)
        events = answering.stream(exchange)
        # The first event is awaited here, so that an error before it is a plain HTTP error.
        first = await anext(events)
        return StreamingResponse(
            _closing(first, events),
            media_type="text/event-stream",
            headers={**exchange.headers, "Cache-Control": "no-store"},
        )

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        key = await keeper.admit(request.headers.get("authorization"), "chat")
        table = tables.of(key.tenant)
        names = [job.pipeline, "champion"]
        if key.may("admin"):
            names += [*table.versions, *([job.base_name] if job.base_name not in table.versions else [])]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "ratchet"} for name in names],
        }

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> JSONResponse:
        key = await keeper.admit(request.headers.get("authorization"), "feedback")
        body = await _body(request, serving.max_body_bytes)
        user = _named(request.headers.get("x-ratchet-user"), "user")
        event = await asyncio.to_thread(read_feedback, body, key=key, user_header=user, store=store, salt=user_salt)
        receipt = await asyncio.to_thread(store.record_feedback, event)
        metrics.feedback.labels(event.kind, receipt.status).inc()
        facts = {"status": receipt.status, "event_id": event.event_id, "interaction_id": event.interaction_id}
        return JSONResponse(facts, 202 if receipt.status == "parked" else 200)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        champion = tables.of(job.tenant).champion
        missing = []
        if not await client.healthy():
            missing.append("the engine does not answer")
        else:
            try:
                await loading.ensure(champion)
            except RatchetError as error:
                missing.append(str(error))
        try:
            await asyncio.to_thread(_ping)
        except SQLAlchemyError as error:
            missing.append(f"the database does not answer: {error}")
        facts = {"status": "not ready" if missing else "ready", "champion": champion, "missing": missing}
        return JSONResponse(facts, 503 if missing else 200)

    def _ping() -> None:
        with database.connect() as connection:
            connection.execute(text("SELECT 1"))

    @app.get("/metrics")
    async def show_metrics() -> Response:
        metrics.waiting.set(capture.depth)
        for table in tables.all:
            metrics.ledger_seq.labels(table.tenant).set(table.seq)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    add_console(app, job, database=database, keeper=keeper, loading=loading)
    return app


async def _body(request: Request, limit: int) -> bytes:
    """The body, never reading more than `limit` bytes."""
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


def _named(value: str | None, what: str) -> str | None:
    if value is not None and len(value) > 200:
        raise ApiError(400, f"{what} has {len(value)} characters; at most 200 are taken", param=what)
    return value or None


async def _closing(first: bytes, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for part in events:
            yield part
    finally:
        await events.aclose()
