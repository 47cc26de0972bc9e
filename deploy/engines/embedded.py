"""The embedded engine: one base model, adapters by content hash, OpenAI's protocol on loopback.

    python -m deploy.engines.embedded engine.json

It speaks the same HTTP as vLLM's server (chat completions, completions with prompt log-probabilities, models, load and
unload an adapter, health), and its load takes whole models too.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.config import ENGINE_KEY, EngineJob
from deploy.engines import protocol
from deploy.engines.client_disconnect import cancel_on_disconnect, first_or_disconnect
from deploy.engines.protocol import ApiError, ChatRequest, CompletionRequest, Sampling, event, parse
from deploy.engines.worker import Busy, Worker
from infra.artifact import digest_dir
from infra.errors import Conflict, CorruptArtifact, NotFound, Unavailable, UserError
from infra.processes.job_file import job_main
from infra.settings import secret
from training.generation.generator import Generator
from training.generation.generator import Request as Prompt

log = logging.getLogger(__name__)
Unloaded = Literal["unloaded", "draining", "kept"]
CONTENT_NAME = re.compile(r"^v([0-9a-f]{16})$")


class LoadRequest(BaseModel):
    """`POST /v1/load_lora_adapter`."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1)


class UnloadRequest(BaseModel):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: str
    wait_seconds: float = Field(default=30.0, ge=0, le=300)


class AdapterRegistry:
    """Which names stand for which bytes, and which of them are loaded."""

    def __init__(self, worker: Worker, base_name: str) -> None:
        self.worker = worker
        self.base_name = base_name
        self.digests: dict[str, str] = {}  # every name ever used in this process: never reused
        self.loaded: dict[str, int] = {}
        self.closing: set[str] = set()
        self._turn = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """Names that requests may ask for."""
        return [self.base_name, *(name for name in self.loaded if name not in self.closing)]

    def adapter(self, model: str) -> str | None:
        """What the generator calls this model (None: the base)."""
        if model == self.base_name:
            return None
        if model not in self.loaded or model in self.closing:
            raise protocol.unknown_model(model, self.names)
        return model

    async def load(self, name: str, path: Path) -> None:
        """Load an adapter or whole model; its bytes must be those that a content-hash name says."""
        async with self._turn:
            weights = next((path / part for part in ("adapter", "model") if (path / part).is_dir()), path)
            digest = await asyncio.to_thread(digest_dir, weights)
            expected = CONTENT_NAME.match(name)
            if expected is not None and not digest.startswith(expected[1]):
                raise CorruptArtifact(
                    f"{weights} has digest {digest[:16]}, its name says {expected[1]}: the bytes were changed or cut; "
                    "copy the version again"
                )
            if name == self.base_name or self.digests.get(name, digest) != digest:
                raise Conflict(f"{name!r} already stands for other bytes in this engine; names are never reused")
            if name in self.loaded:
                self.closing.discard(name)
                return
            generator = self.worker.generator
            if (weights / "adapter_config.json").exists():
                await self.worker.call(lambda: generator.attach(name, weights))
            elif (weights / "config.json").exists():
                await self.worker.call(lambda: generator.attach_model(name, weights))
            else:
                raise NotFound(
                    f"{weights} has neither adapter_config.json nor config.json; expected a version's folder"
                )
            self.digests[name] = digest
            self.loaded[name] = int(time.time())

    async def unload(self, name: str, wait_seconds: float) -> Unloaded:
        """Take a name off at once, and its weights away when the last answer through it has ended (see `finish`)."""
        if name not in self.loaded:
            raise NotFound(f"{name!r} is not loaded; loaded are: {', '.join(self.names)}")
        self.closing.add(name)
        return await self.finish(name, wait_seconds)

    async def finish(self, name: str, wait_seconds: float) -> Unloaded:
        """Wait for the last answer, then take the weights away: `unloaded`.

        `draining`: answers still run after `wait_seconds`. `kept`: it was loaded again, which ends the unload.
        """
        deadline = time.monotonic() + wait_seconds
        while name in self.closing:
            if not await self.worker.unused(name, deadline - time.monotonic()):
                return "draining"
            async with self._turn:
                if name in self.closing and not self.worker.references[name]:
                    await self.worker.call(lambda: self.worker.forget(name))
                    del self.loaded[name]
                    self.closing.discard(name)
        return "kept" if name in self.loaded else "unloaded"


class Bearer:
    """Lets requests with the key through, and anybody to /health. Plain ASGI: it stands in no stream's way."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            sent = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(sent, self._expected):
                error = ApiError(401, "wrong or no bearer key", kind="authentication_error", code="invalid_api_key")
                await JSONResponse(error.body, error.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def build_app(job: EngineJob, make_generator: Callable[[], Generator], key: str) -> FastAPI:
    """The engine's application; the generator is made when it starts."""
    serving = job.serving

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        generator = await asyncio.to_thread(make_generator)
        worker = Worker(generator, max_batch=serving.max_batch, capacity=serving.max_batch + serving.max_waiting)
        worker.start()
        app.state.worker, app.state.shelf = worker, AdapterRegistry(worker, job.base_name)
        log.info(
            "serving %s in %s from %s on %s:%d", job.base_name, generator.dtype, generator.device, job.host, job.port
        )
        yield
        await worker.stop()

    app = FastAPI(title="Ratchet embedded engine", lifespan=lifespan, docs_url=None, redoc_url=None)
    waiting_unloads: set[asyncio.Task[Unloaded]] = set()

    app.add_middleware(Bearer, key=key)

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> JSONResponse:
        error = ApiError(429, "the engine is busy; try again", kind="rate_limit_error", code="engine_busy")
        return JSONResponse(error.body, error.status, headers={"Retry-After": "1"})

    for error_type, status in (
        (NotFound, 404), (Conflict, 409), (CorruptArtifact, 422), (Unavailable, 503), (UserError, 400)
    ):  # fmt: skip
        _answer_errors(app, error_type, status)

    @app.get("/health")
    async def health() -> JSONResponse:
        worker: Worker = app.state.worker
        stuck = worker.size > 0 and time.monotonic() - worker.last_step > 120 + serving.request_seconds
        ok = worker.alive and not stuck
        facts = {"status": "ok" if ok else "stuck", "requests": worker.size, "dtype": str(worker.generator.dtype)[6:]}
        return JSONResponse(facts, 200 if ok else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        shelf: AdapterRegistry = app.state.shelf
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": shelf.loaded.get(name, 0), "owned_by": "ratchet"}
                for name in shelf.names
            ],
        }

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> dict[str, Any]:
        asked: LoadRequest = parse(LoadRequest, await request.body())
        await app.state.shelf.load(asked.lora_name, Path(asked.lora_path))
        return {"status": "loaded", "name": asked.lora_name}

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> JSONResponse:
        asked: UnloadRequest = parse(UnloadRequest, await request.body())
        shelf: AdapterRegistry = app.state.shelf
        status = await shelf.unload(asked.lora_name, asked.wait_seconds)
        if status == "draining":
            # Only finishes what was asked for: it must not take away what is loaded again meanwhile.
            task = asyncio.create_task(shelf.finish(asked.lora_name, 3600.0))
            waiting_unloads.add(task)
            task.add_done_callback(waiting_unloads.discard)
        return JSONResponse({"status": status, "name": asked.lora_name}, 202 if status == "draining" else 200)

    @app.post("/v1/completions")
    async def completions(request: Request) -> dict[str, Any]:
        asked: CompletionRequest = parse(CompletionRequest, await request.body())
        if asked.stream or asked.n not in (None, 1):
            raise ApiError(400, "stream and n are not supported for text completions; use chat completions")
        worker: Worker = app.state.worker
        generator = worker.generator
        adapter = app.state.shelf.adapter(asked.model)
        ids = generator.encode(asked.prompt) if isinstance(asked.prompt, str) else asked.prompt
        _check_ids(ids, generator)
        # The whole exchange counts as one use of the adapter, so it is not taken away in the middle.
        with worker.hold(adapter):
            scores = None
            if asked.prompt_logprobs is not None:
                values = (await worker.call(lambda: generator.logprobs(adapter, [ids])))[0]
                scores = [
                    None, *({str(token): {"logprob": value}} for token, value in zip(ids[1:], values, strict=True))
                ]  # fmt: skip
            answer = None
            if asked.max_tokens != 0:
                prompt = _prompt(asked, ids, adapter, asked.max_tokens or 16)
                answer = await cancel_on_disconnect(request, worker.complete(prompt))
        counts = protocol.usage(len(ids), answer.completion_tokens if answer else 0)
        choice = {
            "index": 0,
            "text": answer.text if answer else "",
            "token_ids": list(answer.token_ids) if answer else [],
            "finish_reason": answer.finish_reason if answer else "length",
            "prompt_logprobs": scores,
        }
        return {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model,
            "choices": [choice],
            "usage": counts,
        }

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked: ChatRequest = parse(ChatRequest, await request.body())
        asked.check()
        worker: Worker = app.state.worker
        adapter = app.state.shelf.adapter(asked.model)
        messages = [message.plain for message in asked.messages]
        ids = worker.generator.encode_chat(messages)
        limit = asked.max_completion_tokens or asked.max_tokens or serving.max_tokens
        prompt = _prompt(asked, ids, adapter, limit, prefix_len=_system_prefix(worker.generator, messages, ids))
        answer_id = f"chatcmpl-{prompt.request_id}"
        if not asked.stream:
            with worker.hold(adapter):
                done = await cancel_on_disconnect(request, worker.complete(prompt))
            counts = protocol.usage(done.prompt_tokens, done.completion_tokens)
            body = protocol.chat_answer(answer_id, asked.model, done.text, done.finish_reason, counts)
            return JSONResponse(body)
        steps = worker.answer(prompt)
        # The first step is awaited before the response begins, so that a refusal still is a plain HTTP error.
        first = await first_or_disconnect(request, steps)

        async def chunks() -> AsyncIterator[bytes]:
            created = int(time.time())
            step = first
            try:
                yield event(
                    protocol.chat_chunk(answer_id, asked.model, created, delta={"role": "assistant", "content": ""})
                )
                while True:
                    if step.text:
                        yield event(protocol.chat_chunk(answer_id, asked.model, created, delta={"content": step.text}))
                    if step.completion is not None:
                        break
                    step = await anext(steps)
                done = step.completion
                yield event(
                    protocol.chat_chunk(answer_id, asked.model, created, delta={}, finish_reason=done.finish_reason)
                )
                if asked.wants_usage:
                    counts = protocol.usage(done.prompt_tokens, done.completion_tokens)
                    yield event(protocol.chat_chunk(answer_id, asked.model, created, counts=counts))
                yield event("[DONE]")
            except Unavailable as error:
                yield event(ApiError(503, str(error), kind="server_error").body)
            finally:
                await steps.aclose()

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return app


def _answer_errors(app: FastAPI, error_type: type[Exception], status: int) -> None:
    async def handle(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, UserError) and status == 400:
            found = protocol.refused(error)
        else:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            found = ApiError(status, str(error), kind=kind)
        headers = {"Retry-After": "1"} if status == 503 else {}
        return JSONResponse(found.body, found.status, headers=headers)

    app.add_exception_handler(error_type, handle)


def _prompt(asked: Sampling, ids: tuple[int, ...], adapter: str | None, limit: int, *, prefix_len: int = 0) -> Prompt:
    return Prompt(
        prompt_ids=ids,
        request_id=uuid.uuid4().hex,
        adapter=adapter,
        max_tokens=limit,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
        stop=asked.stops,
        stream=asked.stream,
        prefix_len=prefix_len,
    )


def _system_prefix(generator: Generator, messages: list[dict[str, str]], ids: tuple[int, ...]) -> int:
    """How many leading tokens are the system prompt's, which other requests are likely to share."""
    if messages[0]["role"] != "system" or len(messages) < 2:
        return 0
    try:
        system = generator.encode_chat(messages[:1], add_generation_prompt=False)
    except (
        UserError
    ):  # some templates want a question; then nothing is shared, and the request is answered all the same
        return 0
    shared = 0
    for mine, theirs in zip(system, ids[: len(system)], strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared


def _check_ids(ids: tuple[int, ...], generator: Generator) -> None:
    size = generator.vocabulary
    if not ids or min(ids) < 0 or max(ids) >= size:
        raise ApiError(400, f"prompt: expected one or more token ids from 0 to {size - 1}", param="prompt")
    if len(ids) >= generator.context_length:
        raise protocol.refused(
            UserError(f"the prompt has {len(ids)} tokens; the model's context length is {generator.context_length}")
        )


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
