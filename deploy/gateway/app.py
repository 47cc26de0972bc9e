"""The gateway's HTTP application.

POST /v1/chat/completions   GET /v1/models   POST /v1/feedback   POST /v1/arena /v1/arena/choice
GET /healthz /readyz /metrics /openapi.json
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deploy.config import UPSTREAM_KEY, GatewayJob
from deploy.engines import SERVING_ENGINES
from deploy.engines.client import AsyncEngineClient
from deploy.engines.client_disconnect import cancel_on_disconnect, first_or_disconnect
from deploy.engines.protocol import ApiError, ChatRequest, parse, unknown_model
from deploy.experiments.arena import record_pair
from deploy.gateway.access.gatekeeper import Gatekeeper
from deploy.gateway.access.key_cache import KeyCache
from deploy.gateway.backends.adapter_loading import AdapterLoader
from deploy.gateway.backends.replicas import Engines, Replica
from deploy.gateway.capture.queue import CaptureQueue
from deploy.gateway.capture.spool import Spool
from deploy.gateway.chat.answer import ChatHandler
from deploy.gateway.chat.arena import ArenaChoice, keep_choice, two_answers
from deploy.gateway.chat.exchange import Caller, Exchange, named, new_interaction_id
from deploy.gateway.chat.feedback import read_feedback
from deploy.gateway.chat.passthrough import Passthrough
from deploy.gateway.chat.record import InteractionRecorder
from deploy.gateway.chat.shadowing import ShadowRunner
from deploy.gateway.console.mount import add_console
from deploy.gateway.database.query_executor import QueryExecutor
from deploy.gateway.http_errors import add_failures
from deploy.gateway.offline_cache import OfflineCache
from deploy.gateway.open_database import DatabaseOpener, fingerprint
from deploy.gateway.openapi import describe
from deploy.gateway.readiness import Readiness, add_health
from deploy.gateway.routing.assign import Assignment
from deploy.gateway.routing.follow_ledger import Tables
from deploy.gateway.routing.sticky import StickyAssignments
from deploy.gateway.telemetry.metrics import Metrics, MetricsMiddleware
from deploy.gateway.telemetry.tracing import TracingMiddleware
from feedback.store.store import Store
from feedback.store.user_salt import salt_fingerprint
from infra.database.connect import connect
from infra.database.timeouts import serving as waits_of
from infra.errors import RatchetError

__all__ = ["build_app"]


def build_app(job: GatewayJob, *, engine_key: str, user_salt: str) -> FastAPI:
    """Build the application; it connects when it starts."""
    serving = job.serving
    metrics = Metrics()
    database = connect(job.database_url, waits_of(serving.database_seconds))
    # The console's pages read much more at once than an answer does.
    pages = connect(job.database_url, waits_of(max(30.0, serving.database_seconds)))
    reach = QueryExecutor(serving.database_seconds)
    opening = DatabaseOpener(database, reach, user_salt)
    last = OfflineCache(job.spool, database=fingerprint(database), salt_mark=salt_fingerprint(user_salt))
    store = Store(database)
    engines = Engines([_replica(job, url, engine_key) for url in job.engine_urls])
    tables = Tables(
        database,
        engines,
        shared=job.tenant,
        base=job.base_name,
        poll_seconds=serving.poll_seconds,
        reach=reach,
        keep=last.keep_view,
    )
    engines.pinned = lambda: tables.pinned
    book = KeyCache(database, reach, offline_seconds=serving.offline_keys_seconds, keep=last.keep_keys)
    keeper = Gatekeeper(
        database,
        requests_per_minute=serving.requests_per_minute / serving.gateways,
        offline_seconds=serving.offline_keys_seconds,
        reach=reach,
        book=book,
    )
    capture = CaptureQueue(
        database, Spool(job.spool, serving.spool_max_bytes), seconds=serving.database_seconds, reach=reach
    )
    keeping = InteractionRecorder(job, capture, metrics, user_salt)
    answering = ChatHandler(
        job,
        engines=engines,
        tables=tables,
        assignments=StickyAssignments(database, reach),
        keeping=keeping,
        salt=user_salt,
    )
    shadowing = ShadowRunner(job, database, engines, reach)
    upstream = _upstream(job, keeping)

    def ended() -> dict[str, str]:
        return {**opening.ended, **capture.ended, **tables.ended, **book.ended}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Loading versions waits on threads, too; a page of the console that hangs must not keep it from one.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        kept = await asyncio.to_thread(last.read)
        await opening.open(kept)
        capture.start()
        await tables.start(kept.view if kept is not None else None)
        book.start(*((kept.keys, kept.keys_at) if kept is not None else ()))
        yield
        await opening.stop()
        await book.stop()
        await tables.stop()
        await shadowing.stop()
        await capture.stop()
        reach.close()
        if upstream is not None:
            await upstream.close()
        await engines.close()
        database.dispose()
        pages.dispose()

    app = FastAPI(title="Ratchet gateway", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)

    app.add_middleware(MetricsMiddleware, metrics=metrics)
    app.add_middleware(TracingMiddleware)

    add_failures(app)

    async def begin(asked: ChatRequest, caller: Caller, body: bytes) -> Exchange:
        if upstream is None or asked.model not in (job.pipeline, "champion", serving.upstream_model):
            asked.check()
            return await answering.begin(asked, caller)
        interaction_id = new_interaction_id()
        assert serving.upstream_version is not None, "an upstream without a name"
        return Exchange(
            asked=asked,
            caller=caller,
            table=tables.of(caller.key.tenant),
            interaction_id=interaction_id,
            # The ledger's releases answer nobody here, so this is part of none.
            assignment=Assignment(version=serving.upstream_version, arm="champion", probability=1.0, release_seq=0),
            unit=caller.unit(user_salt) or interaction_id,
            raw=json.loads(body),
        )

    def by_upstream(exchange: Exchange) -> bool:
        return upstream is not None and exchange.assignment.version == serving.upstream_version

    async def whole(exchange: Exchange) -> dict[str, Any]:
        if upstream is not None and by_upstream(exchange):
            return await upstream.whole(exchange)
        return await answering.whole(exchange)

    def shadow(exchange: Exchange) -> None:
        try:
            messages = [message.plain for message in exchange.asked.messages]
        except ApiError:
            return  # content that our versions do not understand: nothing to compare
        shadowing.offer(exchange, {"messages": messages, **keeping.settings(exchange)})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        key = await keeper.admit(request.headers.get("authorization"), "chat")
        body = await _body(request, serving.max_body_bytes)
        asked: ChatRequest = parse(ChatRequest, body)
        exchange = await begin(asked, _caller(request, key, asked), body)
        if not asked.stream:
            answer = await cancel_on_disconnect(request, whole(exchange))
            shadow(exchange)
            return JSONResponse(answer, headers=exchange.headers)
        events = (
            upstream.stream(exchange) if upstream is not None and by_upstream(exchange) else answering.stream(exchange)
        )
        # The first event is awaited here, so that an error before it is a plain HTTP error.
        first = await first_or_disconnect(request, events)
        return StreamingResponse(
            _closing(first, events, lambda: shadow(exchange)),
            media_type="text/event-stream",
            headers={**exchange.headers, "Cache-Control": "no-store"},
        )

    @app.post("/v1/arena")
    async def arena(request: Request) -> JSONResponse:
        key = await keeper.admit(request.headers.get("authorization"), "chat")
        body = await _body(request, serving.max_body_bytes)
        asked: ChatRequest = parse(ChatRequest, body)
        asked.check()
        if asked.model not in (job.pipeline, "champion"):
            raise unknown_model(asked.model, [job.pipeline, "champion"])
        table = tables.of(key.tenant)
        pair = two_answers(
            asked,
            _caller(request, key, asked),
            table=table,
            champion=serving.upstream_version or table.champion,
            salt=user_salt,
            raw=json.loads(body),
            answer=whole,
            keep=lambda made: reach.ask(record_pair, database, made),
        )
        return JSONResponse(await cancel_on_disconnect(request, pair))

    @app.post("/v1/arena/choice")
    async def arena_choice(request: Request) -> JSONResponse:
        key = await keeper.admit(request.headers.get("authorization"), "feedback")
        choice: ArenaChoice = parse(ArenaChoice, await _body(request, serving.max_body_bytes))
        user = named(request.headers.get("x-ratchet-user"), "user")
        receipt = await keep_choice(choice, key=key, user_header=user, salt=user_salt, database=database, reach=reach)
        return JSONResponse({"status": receipt.status if receipt else "stored", "arena_id": choice.arena_id})

    @app.get("/v1/models")
    async def models(request: Request) -> JSONResponse:
        key = await keeper.admit(request.headers.get("authorization"), "chat")
        table = tables.of(key.tenant)
        names = [job.pipeline, "champion", *([serving.upstream_model] if serving.upstream_model else [])]
        if key.may("admin"):
            names += [*table.versions, *([job.base_name] if job.base_name not in table.versions else [])]
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "ratchet"} for name in names]
        return JSONResponse({"object": "list", "data": listed})

    @app.post("/v1/feedback")
    async def feedback(request: Request) -> JSONResponse:
        key = await keeper.admit(request.headers.get("authorization"), "feedback")
        body = await _body(request, serving.max_body_bytes)
        user = named(request.headers.get("x-ratchet-user"), "user")
        event = await reach.ask(read_feedback, body, key=key, user_header=user, store=store, salt=user_salt)
        receipt = await reach.ask(store.record_feedback, event)
        metrics.feedback.labels(event.kind, receipt.status).inc()
        facts = {"status": receipt.status, "event_id": event.event_id, "interaction_id": event.interaction_id}
        return JSONResponse(facts, 202 if receipt.status == "parked" else 200)

    def champion() -> str:
        return serving.upstream_version or tables.of(job.tenant).champion

    async def cannot_answer() -> str | None:
        if upstream is not None:
            return None if await upstream.healthy() else "the upstream champion does not answer"
        if not await engines.healthy():
            return "the engine does not answer"
        try:
            await engines.ensure(champion())
        except RatchetError as error:
            return str(error)
        return None

    readiness = Readiness(
        database,
        reach=reach,
        capture=capture,
        tables=tables,
        lease_seconds=job.lease_seconds,
        answers=cannot_answer,
        ended=ended,
    )
    add_health(app, readiness, ended, champion)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        metrics.waiting.set(capture.depth)
        metrics.spooled.set(capture.spooled)
        metrics.shadows_dropped.set(shadowing.dropped)
        metrics.routing_age.set(tables.age_seconds)
        metrics.database_away.set(capture.away is not None)
        for table in tables.all:
            metrics.ledger_seq.labels(table.tenant).set(table.seq)
            metrics.ledger_unread.labels(table.tenant).set(table.tenant in tables.unread)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    add_console(app, job, database=pages, keeper=keeper, loading=engines)
    describe(app, job)
    return app


def _replica(job: GatewayJob, url: str, key: str) -> Replica:
    serving = job.serving
    dialect = SERVING_ENGINES.named(serving.engine)
    loading = AdapterLoader(
        url=url,
        key=key,
        dialect=dialect,
        versions_dir=job.versions_dir,
        base_version=job.base_name,
        base_name=serving.base_model_name or job.base_name,
        tolerance=serving.parity_tolerance,
        limit=serving.max_loaded,
    )
    return Replica(AsyncEngineClient(url, key, dialect=dialect, timeout=serving.request_seconds), loading)


def _upstream(job: GatewayJob, keeping: InteractionRecorder) -> Passthrough | None:
    serving = job.serving
    if serving.upstream_url is None or serving.upstream_model is None:
        return None
    url = serving.upstream_url.rstrip("/").removesuffix("/v1")
    client = AsyncEngineClient(url, os.environ.get(UPSTREAM_KEY, ""), timeout=serving.request_seconds)
    return Passthrough(client, serving.upstream_model, keeping)


def _caller(request: Request, key: Any, asked: ChatRequest) -> Caller:
    return Caller(
        key=key,
        user=named(request.headers.get("x-ratchet-user"), "user") or asked.user or None,
        session=named(request.headers.get("x-ratchet-session"), "session"),
        task=named(request.headers.get("x-ratchet-task"), "task"),
    )


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


async def _closing(first: bytes, events: AsyncGenerator[bytes], at_end: Any) -> AsyncIterator[bytes]:
    try:
        yield first
        async for part in events:
            yield part
        at_end()
    finally:
        await events.aclose()
