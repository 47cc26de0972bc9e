"""Serve the embedded engine: one base model, adapters by content hash, OpenAI's protocol on loopback.

    python -m deploy.engines.embedded engine.json

It speaks the same HTTP as vLLM's server (chat completions, completions with prompt log-probabilities, models, load and
unload an adapter, health), and its load takes whole models too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from deploy.config import ENGINE_KEY, EngineJob
from deploy.engines.adapter_registry import AdapterRegistry, Unloaded
from deploy.engines.embedded_completions import Completions
from deploy.engines.embedded_http import Bearer, add_error_handlers
from deploy.engines.protocol import ChatRequest, CompletionRequest, parse
from deploy.engines.worker import Worker
from infra.processes.job_file import job_main
from infra.settings import secret
from training.generation.generator import Generator

log = logging.getLogger(__name__)


class LoadRequest(BaseModel):
    """`POST /v1/load_lora_adapter`."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1)


class UnloadRequest(BaseModel):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: str
    wait_seconds: float = Field(default=30.0, ge=0, le=300)


class EmbeddedServer:
    """The running engine; its generator is made when it starts."""

    def __init__(self, job: EngineJob, make_generator: Callable[[], Generator]) -> None:
        self._job, self._make_generator = job, make_generator
        self._unloading: set[asyncio.Task[Unloaded]] = set()
        self.worker: Worker
        self.adapters: AdapterRegistry
        self.completions: Completions

    async def start(self) -> None:
        """Make the generator, and begin to work."""
        job, serving = self._job, self._job.serving
        generator = await asyncio.to_thread(self._make_generator)
        capacity = serving.max_batch + serving.max_waiting
        self.worker = Worker(generator, max_batch=serving.max_batch, capacity=capacity)
        self.worker.start()
        self.adapters = AdapterRegistry(self.worker, job.base_name)
        self.completions = Completions(self.worker, self.adapters, max_tokens=serving.max_tokens)
        log.info(
            "serving %s in %s from %s on %s:%d", job.base_name, generator.dtype, generator.device, job.host, job.port
        )

    async def stop(self) -> None:
        """Let running answers end, then stop."""
        await self.worker.stop()

    def health(self) -> JSONResponse:
        """Check whether the worker lives and is not stuck in a step."""
        worker = self.worker
        stuck = worker.size > 0 and time.monotonic() - worker.last_step > 120 + self._job.serving.request_seconds
        ok = worker.alive and not stuck
        facts = {"status": "ok" if ok else "stuck", "requests": worker.size, "dtype": str(worker.generator.dtype)[6:]}
        return JSONResponse(facts, 200 if ok else 503)

    def models(self) -> dict[str, Any]:
        """Return what requests may ask for, in OpenAI's form."""
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": self.adapters.loaded.get(name, 0), "owned_by": "ratchet"}
                for name in self.adapters.names
            ],
        }

    async def unload(self, request: UnloadRequest) -> JSONResponse:
        """Unload an adapter; one that answers still go through is taken away when they have ended."""
        name = request.lora_name
        status = await self.adapters.unload(name, request.wait_seconds)
        if status == "draining":
            # Only finishes what was asked for: it must not take away what is loaded again meanwhile.
            task = asyncio.create_task(self.adapters.finish(name, 3600.0))
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)
        return JSONResponse({"status": status, "name": name}, 202 if status == "draining" else 200)


def build_app(job: EngineJob, make_generator: Callable[[], Generator], key: str) -> FastAPI:
    """Build the engine's application."""
    server = EmbeddedServer(job, make_generator)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.start()
        yield
        await server.stop()

    app = FastAPI(title="Ratchet embedded engine", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Bearer, key=key)
    add_error_handlers(app)

    @app.get("/health")
    async def health() -> JSONResponse:
        return server.health()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return server.models()

    @app.post("/v1/load_lora_adapter")
    async def load(http: Request) -> dict[str, Any]:
        request = parse(LoadRequest, await http.body())
        await server.adapters.load(request.lora_name, Path(request.lora_path))
        return {"status": "loaded", "name": request.lora_name}

    @app.post("/v1/unload_lora_adapter")
    async def unload(http: Request) -> JSONResponse:
        return await server.unload(parse(UnloadRequest, await http.body()))

    @app.post("/v1/completions")
    async def completions(http: Request) -> dict[str, Any]:
        return await server.completions.complete(http, parse(CompletionRequest, await http.body()))

    @app.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        return await server.completions.chat(http, parse(ChatRequest, await http.body()))

    return app


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; running answers end first."""
    return job_main("engine", argv, EngineJob, _serve)


def _serve(job: EngineJob) -> None:
    import uvicorn

    threads = job.serving.compute_threads()
    app = build_app(job, lambda: Generator(job.base_path, dtype=job.serving.dtype, threads=threads), secret(ENGINE_KEY))
    uvicorn.run(
        app, host=job.host, port=job.port, log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=30
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
