"""Serve the arena: two blind answers, and which of them is better."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from deploy.engines.client_disconnect import cancel_on_disconnect
from deploy.engines.protocol import ChatRequest, parse, unknown_model
from deploy.experiments.arena import record_pair
from deploy.gateway.chat.arena import ArenaChoice, ArenaPair, keep_choice, two_answers
from deploy.gateway.components import Gateway
from deploy.gateway.openapi import BEARER, ReceiptBody, refusals, request_body
from deploy.gateway.routers.request import caller_of, read_body, user_of


def arena_router(gateway: Gateway) -> APIRouter:
    """Make the routes."""
    router = APIRouter(dependencies=[Depends(BEARER)])
    job, limit, names = gateway.job, gateway.job.serving.max_body_bytes, [gateway.job.pipeline, "champion"]

    @router.post(
        "/v1/arena",
        responses={200: {"model": ArenaPair}, **refusals(404)},
        openapi_extra=request_body(ChatRequest, model={"enum": names}, stream={"const": False}),
    )
    async def arena(request: Request) -> JSONResponse:
        key = await gateway.keeper.admit(request.headers.get("authorization"), "chat")
        body = await read_body(request, limit)
        chat = parse(ChatRequest, body)
        chat.check()
        if chat.model not in (job.pipeline, "champion"):
            raise unknown_model(chat.model, names)
        pair = two_answers(
            chat,
            caller_of(request, key, chat),
            body,
            backend=gateway.backend,
            table=gateway.tables.of(key.tenant),
            salt=gateway.user_salt,
            keep=lambda made: gateway.queries.run(record_pair, gateway.database, made),
        )
        return JSONResponse((await cancel_on_disconnect(request, pair)).model_dump(mode="json"))

    @router.post(
        "/v1/arena/choice",
        responses={200: {"model": ReceiptBody}, **refusals(404)},
        openapi_extra=request_body(ArenaChoice),
    )
    async def arena_choice(request: Request) -> JSONResponse:
        key = await gateway.keeper.admit(request.headers.get("authorization"), "feedback")
        choice = parse(ArenaChoice, await read_body(request, limit))
        receipt = await keep_choice(
            choice,
            key=key,
            user_header=user_of(request),
            salt=gateway.user_salt,
            database=gateway.database,
            queries=gateway.queries,
        )
        return JSONResponse({"status": receipt.status if receipt else "stored", "arena_id": choice.arena_id})

    return router
