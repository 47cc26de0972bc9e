"""Serve health, readiness and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from deploy.gateway.components import Gateway


class NotReady(BaseModel):
    """What stands in the way of answering."""

    missing: tuple[str, ...]


def operations_router(gateway: Gateway) -> APIRouter:
    """Make the routes; anybody may ask."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        dead = gateway.ended()
        facts = {"status": "ended", "ended": sorted(dead)} if dead else {"status": "ok"}
        return JSONResponse(facts, 503 if dead else 200)

    @router.get("/readyz", responses={503: {"model": NotReady, "description": "what is missing"}})
    async def readyz() -> JSONResponse:
        report = await gateway.readiness.check()
        facts = {
            "status": report.status,
            "champion": gateway.backend.champion(gateway.job.tenant),
            "missing": list(report.missing),
            "degraded": list(report.degraded),
        }
        return JSONResponse(facts, 503 if report.missing else 200)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        metrics = gateway.metrics
        metrics.waiting.set(gateway.capture.depth)
        metrics.spooled.set(gateway.capture.spooled)
        metrics.shadows_dropped.set(gateway.shadows.dropped)
        metrics.routing_age.set(gateway.tables.age_seconds)
        metrics.database_away.set(gateway.capture.away is not None)
        for table in gateway.tables.all:
            metrics.ledger_seq.labels(table.tenant).set(table.seq)
            metrics.ledger_unread.labels(table.tenant).set(table.tenant in gateway.tables.unread)
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    return router
