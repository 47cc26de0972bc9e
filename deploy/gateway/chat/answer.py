"""One chat request from its routing to its stored interaction."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from deploy.api_keys import ApiKey
from deploy.config import GatewayJob
from deploy.engines import protocol
from deploy.engines.client import EngineRefusal
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.backends.replicas import Engines
from deploy.gateway.chat.exchange import Caller, Exchange, new_interaction_id
from deploy.gateway.chat.record import InteractionRecorder, unavailable
from deploy.gateway.database.background import told
from deploy.gateway.routing.assign import Assignment, RoutingTable
from deploy.gateway.routing.follow_ledger import Tables
from deploy.gateway.routing.sticky import StickyAssignments
from deploy.versions.versions import is_published
from infra.errors import RatchetError, Unavailable


class ChatHandler:
    """Routes, asks an engine, stores, answers."""

    def __init__(
        self,
        job: GatewayJob,
        *,
        engines: Engines,
        tables: Tables,
        assignments: StickyAssignments,
        keeping: InteractionRecorder,
        salt: str,
    ) -> None:
        self._job = job
        self._engines = engines
        self._tables = tables
        self._assignments = assignments
        self._keeping = keeping
        self._salt = salt

    async def begin(self, asked: ChatRequest, caller: Caller) -> Exchange:
        """Decide who answers, and see that an engine can.

        Raises:
            ApiError: 404 for an unknown model, 403 for a pinned one without the scope, 503 when nothing can answer.
        """
        interaction_id = new_interaction_id()
        unit = caller.unit(self._salt) or interaction_id
        table = self._tables.of(caller.key.tenant)
        if asked.model in (self._job.pipeline, "champion"):
            assignment = await self._dealt(table, unit)
        else:
            assignment = self.pinned(asked.model, caller.key)
        try:
            await self._engines.ensure(assignment.version)
        except RatchetError as error:
            if assignment.version == table.champion or assignment.arm == "pinned":
                raise cannot_serve(assignment.version, error) from error
            # A challenger that cannot be proved is no reason to fail a user; the answer takes part in no comparison.
            assignment = outside(table)
            try:
                await self._engines.ensure(assignment.version)
            except RatchetError as worse:
                raise cannot_serve(assignment.version, worse) from worse
        return Exchange(
            asked=asked, caller=caller, table=table, interaction_id=interaction_id, assignment=assignment, unit=unit
        )

    async def _dealt(self, table: RoutingTable, unit: str) -> Assignment:
        try:
            return await self._assignments.of(table, unit)
        except (SQLAlchemyError, Unavailable):
            # What this unit was dealt before cannot be read now, and nobody may change arms.
            return outside(table)

    async def whole(self, exchange: Exchange) -> dict[str, Any]:
        """The answer in one piece; it is stored when this returns."""
        try:
            answer = await self._engines.chat(self._name(exchange), self._body(exchange), exchange.assignment.version)
        except EngineRefusal as refusal:
            raise passed_on(refusal) from refusal
        except RatchetError as error:
            raise unavailable(str(error)) from error
        choice, usage = answer["choices"][0], answer["usage"]
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        counts = (usage["prompt_tokens"], usage["completion_tokens"])
        await self._keeping.keep(exchange, text, reason, counts)
        return protocol.chat_answer(
            exchange.interaction_id,
            exchange.assignment.version,
            text,
            reason,
            protocol.usage(*counts),
            ratchet=exchange.facts,
        )

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Server-sent events. The chunk that says the answer is finished goes out after the answer is stored.

        Nothing is yielded before the engine has begun to answer, so an error before that is raised as ApiError.
        """
        body = {**self._body(exchange), "stream_options": {"include_usage": True}}
        version, created = exchange.assignment.version, int(time.time())
        pieces: list[str] = []
        reason: str | None = None
        counts = (0, 0)

        def chunk(**parts: Any) -> bytes:
            return protocol.event(protocol.chat_chunk(exchange.interaction_id, version, created, **parts))

        begun = stored = False
        try:
            async with aclosing(self._engines.stream(self._name(exchange), body, version)) as events:
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
            await self._keeping.keep(exchange, "".join(pieces), reason, counts)
            stored = True
            yield chunk(delta={}, finish_reason=reason, ratchet=exchange.facts)
            if exchange.asked.wants_usage:
                yield chunk(counts=protocol.usage(*counts))
            yield protocol.event("[DONE]")
        except (RatchetError, ApiError) as error:
            told = _told(error)
            if not begun:
                raise told from error
            yield protocol.event(told.body)
        finally:
            if not stored and pieces:
                # The person saw a part of it, so it happened: kept as what it is. Not awaited: we may be cancelled.
                unfinished(self._keeping.keep(exchange, "".join(pieces), "cancelled", counts))

    def pinned(self, model: str, key: ApiKey) -> Assignment:
        """The assignment of a request that names a version.

        Raises:
            ApiError: 404 for one that is not this tenant's, 403 without the scope.
        """
        known = model == self._job.base_name or is_published(self._job.versions_dir, model)
        if not known or not self._tables.may_name(key.tenant, model):
            raise protocol.unknown_model(model, [self._job.pipeline, "champion"])
        if not key.may("admin"):
            message = (
                f"asking for the version {model!r} by name needs the scope 'admin'; ask for {self._job.pipeline!r}"
            )
            raise ApiError(403, message, kind="permission_error", code="missing_scope", param="model")
        return Assignment(version=model, arm="pinned", probability=1.0, release_seq=0)

    def _name(self, exchange: Exchange) -> str:
        """What the engines call the version."""
        return engine_name(self._job, exchange.assignment.version)

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        messages = [message.plain for message in exchange.asked.messages]
        return {"messages": messages, **self._keeping.settings(exchange)}


def engine_name(job: GatewayJob, version: str) -> str:
    """What the engines call a version: its own name, but for the base."""
    return (job.serving.base_model_name or job.base_name) if version == job.base_name else version


def outside(table: RoutingTable) -> Assignment:
    """The champion's answer, as part of no comparison."""
    return Assignment(version=table.champion, arm="champion", probability=1.0, release_seq=0)


_unfinished: set[asyncio.Task[None]] = set()


def unfinished(work: Any) -> None:
    """Let a task run on after whoever asked has left."""
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    told(task, "keeping an answer that its reader left")


def cannot_serve(version: str, error: RatchetError) -> ApiError:
    """503: the version that must answer cannot."""
    return unavailable(f"version {version} cannot be served now: {error}")


def _told(error: RatchetError | ApiError) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return passed_on(error) if isinstance(error, EngineRefusal) else unavailable(str(error))


def passed_on(refusal: EngineRefusal) -> ApiError:
    """What the engine said, to the client; its own troubles are ours."""
    error = refusal.body.get("error")
    details = error if isinstance(error, dict) else {}
    if refusal.status not in (400, 429):
        return unavailable(refusal.message)
    retry = {"Retry-After": refusal.headers["retry-after"]} if "retry-after" in refusal.headers else {}
    return ApiError(
        refusal.status,
        refusal.message,
        kind=str(details.get("type") or "invalid_request_error"),
        code=details.get("code"),
        param=details.get("param"),
        headers=retry,
    )
