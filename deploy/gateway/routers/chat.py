"""Serve chat completions and the list of models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deploy.engines.client_disconnect import cancel_on_disconnect, first_or_disconnect
from deploy.engines.protocol import ApiError, ChatRequest, parse
from deploy.gateway.chat.exchange import Exchange
from deploy.gateway.components import Gateway
from deploy.gateway.openapi import BEARER, ErrorBody, GatewayAnswer, refusals, request_body
from deploy.gateway.routers.request import caller_of, read_body

_EVENTS = {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}}


def chat_router(gateway: Gateway) -> APIRouter:
    """Make the routes."""
    router = APIRouter(dependencies=[Depends(BEARER)])
    backend, job, limit = gateway.backend, gateway.job, gateway.job.serving.max_body_bytes

    @router.post(
        "/v1/chat/completions",
        responses={200: {"model": GatewayAnswer, "content": _EVENTS}, **refusals(404)},
        openapi_extra=request_body(ChatRequest, model={"enum": [job.pipeline, "champion"]}),
    )
    async def chat(request: Request) -> Response:
        key = await gateway.keeper.admit(request.headers.get("authorization"), "chat")
        body = await read_body(request, limit)
        chat_request = parse(ChatRequest, body)
        exchange = await backend.route(chat_request, caller_of(request, key, chat_request), body)
        if not chat_request.stream:
            answer = await cancel_on_disconnect(request, backend.answer(exchange))
            _copy_to_shadow(gateway, exchange)
            return JSONResponse(answer, headers=exchange.headers)
        events = backend.stream(exchange)
        # The first event is awaited here, so that an error before it is a plain HTTP error.
        first = await first_or_disconnect(request, events)
        return StreamingResponse(
            _closing(first, events, lambda: _copy_to_shadow(gateway, exchange)),
            media_type="text/event-stream",
            headers={**exchange.headers, "Cache-Control": "no-store"},
        )

    @router.get("/v1/models", responses={status: {"model": ErrorBody} for status in (401, 403, 429, 503)})
    async def models(request: Request) -> JSONResponse:
        key = await gateway.keeper.admit(request.headers.get("authorization"), "chat")
        names = list(backend.names())
        if key.may("admin"):
            table = gateway.tables.of(key.tenant)
            names += [*table.versions, *([job.base_name] if job.base_name not in table.versions else [])]
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "ratchet"} for name in names]
        return JSONResponse({"object": "list", "data": listed})

    return router


def _copy_to_shadow(gateway: Gateway, exchange: Exchange) -> None:
    try:
        messages = [message.plain for message in exchange.request.messages]
    except ApiError:
        return  # content that our versions do not understand: nothing to compare
    gateway.shadows.offer(exchange, {"messages": messages, **gateway.recorder.sampling(exchange)})


async def _closing(first: bytes, events: AsyncGenerator[bytes], at_end: Callable[[], None]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for part in events:
            yield part
        at_end()
    finally:
        await events.aclose()
