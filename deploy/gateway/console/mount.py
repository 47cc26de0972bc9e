"""Add the console to a gateway: its page and files under /console, its API under /console/api.

Every answer of the API belongs to the key's own tenant. Numbers need any key with `chat`; what people wrote needs
`trusted` or `admin`; what changes something needs `admin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from deploy.api_keys import ApiKey, Scope
from deploy.config import ConsoleJob, GatewayJob
from deploy.engines.protocol import ApiError, parse
from deploy.gateway.access.gatekeeper import Gatekeeper
from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.console import canary, lineage, nights, quality, quarantine, releases
from deploy.ledger.evidence import Proof
from infra.errors import Conflict, NotFound, RatchetError, Unavailable, UserError
from infra.settings import Config

T = TypeVar("T")
STATIC = Path(__file__).parent / "static"
PROVE_SECONDS = 120.0
"""Longest wait for the engine before a rollback that a person clicked goes on without its proof."""
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_TYPES[".js"] = "text/javascript; charset=utf-8"
HEADERS = {
    # Nothing from elsewhere, nothing inline, in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Decision(Config):
    """Accept or drop a quarantined row."""

    note: str = Field(default="", max_length=1000)
    """Why."""
    correction: Mapping[str, Any] | None = None
    """The corrected value, where there is one."""


class TakeBack(Config):
    """Roll back."""

    reason: str = Field(min_length=3, max_length=500)
    """Why; it stands in the ledger for ever."""
    to: str | None = Field(default=None, max_length=200)
    """Version to go back to; empty: the last good one."""
    expected_seq: int = Field(ge=0)
    """Ledger line that the person was looking at; another one since then refuses the click."""


class Resume(Config):
    """Let nights release again."""

    reason: str = Field(min_length=3, max_length=500)
    """Why."""


def add_console(app: FastAPI, job: GatewayJob, *, database: Engine, keeper: Gatekeeper, loading: ReplicaPool) -> None:
    """Mount page and API; nothing without `job.console`."""
    if job.console is None:
        return
    console = job.console
    _add_files(app)
    _add_views(app, job, console, database, keeper)
    _add_texts(app, console, database, keeper)
    _add_actions(app, console, database, keeper, loading)


def _add_files(app: FastAPI) -> None:
    # Read once: what is served is what was installed, and no request names a path on the disk.
    files = {file.name: file.read_bytes() for file in sorted(STATIC.iterdir()) if file.suffix in _TYPES}

    def serve(name: str) -> Response:
        if name not in files:
            raise ApiError(404, f"the console has no file {name!r}")
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=HEADERS)

    @app.get("/console", include_in_schema=False)
    @app.get("/console/", include_in_schema=False)
    async def page() -> Response:
        return serve("index.html")

    @app.get("/console/static/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return serve(name)


def _add_views(app: FastAPI, job: GatewayJob, console: ConsoleJob, database: Engine, keeper: Gatekeeper) -> None:
    @app.get("/console/api/me")
    async def me(request: Request) -> JSONResponse:
        """Who asks, and where MLflow and Prefect are."""
        key = await _admit(keeper, request, "chat")
        facts = {"name": key.name, "tenant": key.tenant, "scopes": sorted(key.scopes), "pipeline": job.pipeline}
        return _json({**facts, "links": dict(console.links)})

    @app.get("/console/api/live")
    async def live(request: Request) -> JSONResponse:
        """What is live, since when and why; what happened lately; who watches."""
        key = await _admit(keeper, request, "chat")
        return _json(await asyncio.to_thread(releases.live, database, key.tenant))

    @app.get("/console/api/ledger")
    async def ledger(request: Request) -> JSONResponse:
        """All lines of the tenant, newest first."""
        key = await _admit(keeper, request, "chat")
        return _json(await asyncio.to_thread(releases.ledger, database, key.tenant))

    @app.get("/console/api/canary")
    async def watch(request: Request) -> JSONResponse:
        """The open watch with its evidence after every rated user, and the boundaries."""
        key = await _admit(keeper, request, "chat")
        curve = await asyncio.to_thread(canary.curve, database, key.tenant, console.canary)
        return _json({"watch": None} if curve is None else curve)

    @app.get("/console/api/quality")
    async def versions(request: Request) -> JSONResponse:
        """Accuracy and satisfied users per version, with intervals."""
        key = await _admit(keeper, request, "chat")
        return _json(await asyncio.to_thread(quality.quality_of_versions, database, console.home, key.tenant))

    @app.get("/console/api/nights")
    async def all_nights(request: Request) -> JSONResponse:
        """The last nights, and how far tonight's is."""
        key = await _admit(keeper, request, "chat")
        return _json(await asyncio.to_thread(nights.list_nights, console.home, key.tenant))

    @app.get("/console/api/nights/{night_id}")
    async def one_night(request: Request, night_id: str) -> JSONResponse:
        """One night with its scorecard; examples only for keys that may read what people wrote."""
        key = await _admit(keeper, request, "chat")
        texts = _may_read(key)
        return _json(await _run(lambda: nights.show_night(console.home, key.tenant, night_id, texts=texts)))


def _add_texts(app: FastAPI, console: ConsoleJob, database: Engine, keeper: Gatekeeper) -> None:
    @app.get("/console/api/quarantine")
    async def held(request: Request, code: str | None = None, limit: int = 50) -> JSONResponse:
        """Rows that wait for a decision, newest first, and how many there are for each reason."""
        key = await _reader(keeper, request)
        count = min(max(limit, 1), 500)
        return _json(await asyncio.to_thread(quarantine.held, database, console.home, key.tenant, code, count))

    @app.get("/console/api/lineage")
    async def trace(request: Request, q: str) -> JSONResponse:
        """From an answer, event, example, snapshot, version or night to what it came from and what it led to."""
        key = await _reader(keeper, request)
        asked = q.strip()[:200]
        return _json(await _run(lambda: lineage.trace(database, console, key.tenant, asked)))


def _add_actions(app: FastAPI, console: ConsoleJob, database: Engine, keeper: Gatekeeper, loading: ReplicaPool) -> None:
    @app.post("/console/api/quarantine/{row_id}/{decision}")
    async def decide(request: Request, row_id: str, decision: str) -> JSONResponse:
        """Accept a row (its events are taken in by the next ingest, as reviewed) or drop it."""
        key = await _admit(keeper, request, "admin")
        if decision not in ("accept", "drop"):
            raise ApiError(404, f"got {decision!r}, expected accept or drop")
        asked: Decision = parse(Decision, await _small(request))
        row = await _run(lambda: quarantine.decide(database, console.home, key, row_id, decision, asked))
        return _json({"row_id": row, "decision": decision})

    @app.post("/console/api/rollback")
    async def rollback(request: Request) -> JSONResponse:
        """Take the open canary back, else the champion; the target is proved in the engine first."""
        key = await _admit(keeper, request, "admin")
        asked: TakeBack = parse(TakeBack, await _small(request))
        running = asyncio.get_running_loop()

        def prove(version: str) -> Proof:
            return prove_in(loading, version, running)

        return _json(await _run(lambda: releases.take_back(database, key, asked, console.pause_seconds, prove)))

    @app.post("/console/api/resume")
    async def resume(request: Request) -> JSONResponse:
        """Let nights release again after a rollback."""
        key = await _admit(keeper, request, "admin")
        asked: Resume = parse(Resume, await _small(request))
        return _json(await _run(lambda: releases.go_on(database, key, asked.reason)))


def prove_in(
    loading: ReplicaPool, version: str, running: asyncio.AbstractEventLoop, *, seconds: float = PROVE_SECONDS
) -> Proof:
    """Have the gateway's engines load and prove a version; called on another thread than the loop's.

    Raises:
        RatchetError: it could not be proved. Unavailable: no engine has said either within `seconds`.
    """
    proving = asyncio.run_coroutine_threadsafe(loading.ensure(version), running)
    try:
        proving.result(seconds)
    except TimeoutError:
        proving.cancel()
        raise Unavailable(
            f"no engine has loaded and proved {version} within {seconds:g} s; look at the engine's log and load"
        ) from None
    return Proof(version=version, proved=True)


async def _admit(keeper: Gatekeeper, request: Request, scope: Scope) -> ApiKey:
    return await keeper.admit(request.headers.get("authorization"), scope)


async def _reader(keeper: Gatekeeper, request: Request) -> ApiKey:
    key = await _admit(keeper, request, "chat")
    if not _may_read(key):
        message = "what people wrote is shown to keys with the scope 'trusted' or 'admin' only"
        raise ApiError(403, message, kind="permission_error", code="missing_scope")
    return key


def _may_read(key: ApiKey) -> bool:
    return "trusted" in key.scopes or "admin" in key.scopes


async def _run(work: Callable[[], T]) -> T:
    """Do the work on a thread of its own; turn its errors into those of HTTP."""
    try:
        return await asyncio.to_thread(work)
    except NotFound as error:
        raise ApiError(404, str(error)) from error
    except (UserError, Conflict) as error:
        raise ApiError(409, str(error)) from error
    except RatchetError as error:
        raise ApiError(503, str(error), kind="server_error") from error


async def _small(request: Request, limit: int = 65_536) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise ApiError(413, f"the body is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts) or b"{}"


def _json(body: BaseModel | Mapping[str, object]) -> JSONResponse:
    value = body.model_dump(mode="json", by_alias=True) if isinstance(body, BaseModel) else body
    return JSONResponse(value, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
