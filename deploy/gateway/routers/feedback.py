"""Serve feedback: what somebody says of an answer."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from deploy.gateway.chat.feedback import FeedbackRequest, read_feedback
from deploy.gateway.components import Gateway
from deploy.gateway.openapi import BEARER, ReceiptBody, refusals, request_body
from deploy.gateway.routers.request import read_body, user_of


def feedback_router(gateway: Gateway) -> APIRouter:
    """Make the route."""
    router = APIRouter(dependencies=[Depends(BEARER)])
    parked = {"model": ReceiptBody, "description": "kept; it waits for its interaction, which is not known yet"}

    @router.post(
        "/v1/feedback",
        responses={200: {"model": ReceiptBody}, 202: parked, **refusals()},
        openapi_extra=request_body(FeedbackRequest),
    )
    async def feedback(request: Request) -> JSONResponse:
        key = await gateway.keeper.admit(request.headers.get("authorization"), "feedback")
        body = await read_body(request, gateway.job.serving.max_body_bytes)
        event = await gateway.queries.run(
            read_feedback, body, key=key, user_header=user_of(request), store=gateway.store, salt=gateway.user_salt
        )
        receipt = await gateway.queries.run(gateway.store.record_feedback, event)
        gateway.metrics.feedback.labels(event.kind, receipt.status).inc()
        facts = {"status": receipt.status, "event_id": event.event_id, "interaction_id": event.interaction_id}
        return JSONResponse(facts, 202 if receipt.status == "parked" else 200)

    return router
