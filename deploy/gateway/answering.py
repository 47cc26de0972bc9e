"""One chat request from its routing to its stored interaction."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from deploy.engines import protocol
from deploy.engines.client import AsyncEngineClient, EngineRefusal
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.assignments import Assignments
from deploy.gateway.capture import Capture
from deploy.gateway.loading import Loading
from deploy.gateway.metrics import Metrics
from deploy.gateway.tables import Tables
from deploy.keys import ApiKey
from deploy.routing import Assignment
from deploy.serving import GatewayJob
from feedback.events import Interaction, Message, Routing, pseudonym
from infra.database import now
from infra.errors import RatchetError, Unavailable

TRIES = 4
"""How often a request may find that the engine has just lost its version, before it is given up."""


@dataclass(frozen=True)
class Caller:
    """Who asks, beside the request's body."""

    key: ApiKey
    user: str | None
    """The end user as the application names them; only a hash of it is kept."""
    session: str | None
    task: str | None


@dataclass
class Exchange:
    """One request on its way to an answer."""

    asked: ChatRequest
    caller: Caller
    interaction_id: str
    assignment: Assignment
    unit: str
    started: float = field(default_factory=time.monotonic)
    created_at: Any = field(default_factory=now)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"X-Ratchet-Interaction": self.interaction_id, "X-Ratchet-Version": self.assignment.version}

    @property
    def facts(self) -> dict[str, str]:
        """The same in the body."""
        return {"interaction_id": self.interaction_id, "version": self.assignment.version}


class Answering:
    """Routes, asks the engine, stores, answers."""

    def __init__(
        self,
        job: GatewayJob,
        *,
        client: AsyncEngineClient,
        tables: Tables,
        assignments: Assignments,
        loading: Loading,
        capture: Capture,
        metrics: Metrics,
        salt: str,
    ) -> None:
        self._job = job
        self._client = client
        self._tables = tables
        self._assignments = assignments
        self._loading = loading
        self._capture = capture
        self._metrics = metrics
        self._salt = salt

    async def begin(self, asked: ChatRequest, caller: Caller) -> Exchange:
        """Decide who answers, and see that the engine can.

        Raises:
            ApiError: 404 for an unknown model, 403 for a pinned one without the scope, 503 when nothing can answer.
        """
        interaction_id = f"chatcmpl-{uuid.uuid4().hex}"
        who = caller.user or (f"session\0{caller.session}" if caller.session else None)
        unit = pseudonym(who, self._salt) if who else interaction_id
        table = self._tables.of(caller.key.tenant)
        if asked.model in (self._job.pipeline, "champion"):
            assignment = await self._assignments.of(table, unit)
        else:
            assignment = self._pinned(asked.model, caller.key)
        try:
            await self._loading.ensure(assignment.version)
        except RatchetError as error:
            if assignment.version == table.champion or assignment.arm == "pinned":
                raise _cannot_serve(assignment.version, error) from error
            # A challenger that cannot be proved is no reason to fail a user; the answer takes part in no comparison.
            assignment = Assignment(version=table.champion, arm="champion", probability=1.0, release_seq=0)
            try:
                await self._loading.ensure(assignment.version)
            except RatchetError as worse:
                raise _cannot_serve(assignment.version, worse) from worse
        return Exchange(asked=asked, caller=caller, interaction_id=interaction_id, assignment=assignment, unit=unit)

    async def whole(self, exchange: Exchange) -> dict[str, Any]:
        """The answer in one piece; it is stored when this returns."""
        body = self._engine_body(exchange)
        answer = await self._asked(exchange, body)
        choice, counts = answer["choices"][0], answer["usage"]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        await self._store(exchange, text, reason, counts["prompt_tokens"], counts["completion_tokens"])
        counted = protocol.usage(counts["prompt_tokens"], counts["completion_tokens"])
        return protocol.chat_answer(
            exchange.interaction_id, exchange.assignment.version, text, reason, counted, ratchet=exchange.facts
        )

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Server-sent events. The chunk that says the answer is finished goes out after the answer is stored.

        Nothing is yielded before the engine has begun to answer, so an error before that is raised as ApiError.
        """
        body = {**self._engine_body(exchange), "stream_options": {"include_usage": True}}
        version, created = exchange.assignment.version, int(time.time())
        pieces: list[str] = []
        reason: str | None = None
        counts = (0, 0)

        def chunk(**parts: Any) -> bytes:
            return protocol.event(protocol.chat_chunk(exchange.interaction_id, version, created, **parts))

        begun = stored = False
        try:
            async with aclosing(self._begun(exchange, body)) as events:
                async for data in events:
                    if not begun:
                        begun = True
                        yield chunk(delta={"role": "assistant", "content": ""}, ratchet=exchange.facts)
                    value = json.loads(data)
                    if "error" in value:
                        raise Unavailable(str(value["error"].get("message")))
                    if value.get("usage"):
                        counts = (value["usage"]["prompt_tokens"], value["usage"]["completion_tokens"])
                    for choice in value["choices"]:
                        reason = choice["finish_reason"] or reason
                        if text := choice["delta"].get("content"):
                            pieces.append(text)
                            yield chunk(delta={"content": text})
            if reason is None:
                raise Unavailable("the engine ended the answer early")
            await self._store(exchange, "".join(pieces), reason, *counts)
            stored = True
            yield chunk(delta={}, finish_reason=reason, ratchet=exchange.facts)
            if exchange.asked.wants_usage:
                yield chunk(counts=protocol.usage(*counts))
            yield protocol.event("[DONE]")
        except (Unavailable, ApiError) as error:
            told = error if isinstance(error, ApiError) else _server_error(str(error))
            if not begun:
                raise told from error
            yield protocol.event(told.body)
        finally:
            if not stored and pieces:
                # The person saw a part of it, so it happened: kept as what it is. Not awaited: we may be cancelled.
                task = asyncio.create_task(self._store(exchange, "".join(pieces), "cancelled", *counts))
                _unfinished.add(task)
                task.add_done_callback(_unfinished.discard)

    async def _asked(self, exchange: Exchange, body: dict[str, Any]) -> dict[str, Any]:
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._client.chat(body)
            except EngineRefusal as refusal:
                if not tries_left or not refusal.model_unknown:
                    raise _passed_on(refusal) from refusal
                await self._load_again(exchange)
        raise AssertionError("unreachable")

    async def _begun(self, exchange: Exchange, body: dict[str, Any]) -> AsyncGenerator[str]:
        for tries_left in reversed(range(TRIES)):
            begun = False
            try:
                async for data in self._client.stream(body):
                    begun = True
                    yield data
                return
            except EngineRefusal as refusal:
                if begun or not tries_left or not refusal.model_unknown:
                    raise _passed_on(refusal) from refusal
                await self._load_again(exchange)

    async def _load_again(self, exchange: Exchange) -> None:
        """The engine was restarted or dropped the version: load and prove it once more."""
        version = exchange.assignment.version
        self._loading.forget(version)
        try:
            await self._loading.ensure(version)
        except RatchetError as error:
            raise _cannot_serve(version, error) from error

    def _pinned(self, model: str, key: ApiKey) -> Assignment:
        known = model == self._job.base_name or (self._job.versions_dir / model / "record.json").is_file()
        if not known or "/" in model or model.startswith("."):
            raise protocol.unknown_model(model, [self._job.pipeline, "champion"])
        if not key.may("admin"):
            message = (
                f"asking for the version {model!r} by name needs the scope 'admin'; ask for {self._job.pipeline!r}"
            )
            raise ApiError(403, message, kind="permission_error", code="missing_scope", param="model")
        return Assignment(version=model, arm="pinned", probability=1.0, release_seq=0)

    def _engine_body(self, exchange: Exchange) -> dict[str, Any]:
        asked, version = exchange.asked, exchange.assignment.version
        base = self._job.serving.base_model_name or self._job.base_name
        body: dict[str, Any] = {
            "model": base if version == self._job.base_name else version,
            "messages": [message.plain for message in asked.messages],
            "max_tokens": asked.max_completion_tokens or asked.max_tokens or self._job.serving.max_tokens,
        }
        settings = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "seed": asked.seed,
            "stop": asked.stops or None,
        }
        return body | {name: value for name, value in settings.items() if value is not None}

    async def _store(self, exchange: Exchange, text: str, reason: str, prompt_tokens: int, answer_tokens: int) -> None:
        caller, assignment = exchange.caller, exchange.assignment
        body = self._engine_body(exchange)
        interaction = Interaction(
            interaction_id=exchange.interaction_id,
            tenant=caller.key.tenant,
            user=pseudonym(caller.user, self._salt) if caller.user else None,
            session=caller.session,
            version=assignment.version,
            messages=tuple(Message.model_validate(message) for message in body["messages"]),
            answer=text,
            created_at=exchange.created_at,
            latency_ms=(time.monotonic() - exchange.started) * 1000,
            sampling={
                k: list(v) if isinstance(v, tuple) else v for k, v in body.items() if k not in ("model", "messages")
            },
            prompt_tokens=prompt_tokens,
            completion_tokens=answer_tokens,
            task=caller.task,
            routing=Routing(
                release_seq=assignment.release_seq,
                arm=assignment.arm,
                unit=exchange.unit,
                probability=assignment.probability,
            ),
            finish_reason=reason,
        )
        try:
            await self._capture.keep(interaction)
        except Exception as error:
            raise _server_error("the answer could not be stored, so it is not given; try again") from error
        self._metrics.answers.labels(caller.key.tenant, assignment.version, assignment.arm).inc()
        self._metrics.tokens.labels("prompt").inc(prompt_tokens)
        self._metrics.tokens.labels("answer").inc(answer_tokens)


_unfinished: set[asyncio.Task[None]] = set()


def _server_error(message: str) -> ApiError:
    return ApiError(503, message, kind="server_error", headers={"Retry-After": "1"})


def _cannot_serve(version: str, error: RatchetError) -> ApiError:
    return _server_error(f"version {version} cannot be served now: {error}")


def _passed_on(refusal: EngineRefusal) -> ApiError:
    """What the engine said, to the client; its own troubles are ours."""
    error = refusal.body.get("error")
    details = error if isinstance(error, dict) else {}
    if refusal.status not in (400, 429):
        return _server_error(refusal.message)
    retry = {"Retry-After": refusal.headers["retry-after"]} if "retry-after" in refusal.headers else {}
    return ApiError(
        refusal.status,
        refusal.message,
        kind=str(details.get("type") or "invalid_request_error"),
        code=details.get("code"),
        param=details.get("param"),
        headers=retry,
    )
