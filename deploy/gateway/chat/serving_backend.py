"""Answer a chat request with our own serving engines: route it, ask an engine, store the answer, give it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from deploy.api_keys import ApiKey
from deploy.config import GatewayJob
from deploy.engines import answers, protocol
from deploy.engines.answers import ChatChunk
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.backends.replicas import ReplicaPool
from deploy.gateway.chat.engine_errors import api_error, finish_later, unavailable
from deploy.gateway.chat.exchange import Caller, Exchange, new_interaction_id
from deploy.gateway.chat.record import InteractionRecorder
from deploy.gateway.routing.assign import Assignment, RoutingTable
from deploy.gateway.routing.follow_ledger import RoutingTables
from deploy.gateway.routing.sticky import StickyAssignments
from deploy.versions.versions import is_published
from infra.errors import RatchetError, Unavailable


class ServingBackend:
    """Our own serving engines."""

    def __init__(
        self,
        job: GatewayJob,
        *,
        engines: ReplicaPool,
        tables: RoutingTables,
        assignments: StickyAssignments,
        recorder: InteractionRecorder,
        salt: str,
    ) -> None:
        self._job = job
        self._engines = engines
        self._tables = tables
        self._assignments = assignments
        self._recorder = recorder
        self._salt = salt

    def names(self) -> tuple[str, ...]:
        """As `Backend.names`."""
        return (self._job.pipeline, "champion")

    def champion(self, tenant: str) -> str:
        """As `Backend.champion`."""
        return self._tables.of(tenant).champion

    async def outage(self) -> str | None:
        """As `Backend.outage`."""
        if not await self._engines.healthy():
            return "the engine does not answer"
        try:
            await self._engines.ensure(self.champion(self._job.tenant))
        except RatchetError as error:
            return str(error)
        return None

    async def close(self) -> None:
        """As `Backend.close`."""
        await self._engines.close()

    async def route(self, request: ChatRequest, caller: Caller, body: bytes) -> Exchange:
        """As `Backend.route`."""
        request.check()
        interaction_id = new_interaction_id()
        unit = caller.unit(self._salt) or interaction_id
        table = self._tables.of(caller.key.tenant)
        if request.model in self.names():
            assignment = await self._assigned(table, unit)
        else:
            assignment = self._pinned(request.model, caller.key)
        try:
            await self._engines.ensure(assignment.version)
        except RatchetError as error:
            if assignment.version == table.champion or assignment.arm == "pinned":
                raise _cannot_serve(assignment.version, error) from error
            # A challenger that cannot be proved is no reason to fail a user; the answer takes part in no comparison.
            assignment = _outside(table)
            try:
                await self._engines.ensure(assignment.version)
            except RatchetError as worse:
                raise _cannot_serve(assignment.version, worse) from worse
        return Exchange(
            request=request, caller=caller, table=table, interaction_id=interaction_id, assignment=assignment, unit=unit
        )

    async def answer(self, exchange: Exchange) -> dict[str, Any]:
        """As `Backend.answer`."""
        try:
            answer = await self._engines.chat(self._name(exchange), self._body(exchange), exchange.assignment.version)
        except RatchetError as error:
            raise api_error(error) from error
        counts = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        await self._recorder.record(exchange, answer.text, answer.finish_reason, counts)
        return answers.chat_answer(
            exchange.interaction_id,
            exchange.assignment.version,
            answer.text,
            answer.finish_reason,
            answers.usage(*counts),
            ratchet=exchange.origin,
        )

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """As `Backend.stream`.

        Nothing is yielded before the engine has begun to answer, so an error before that is raised as ApiError.
        """
        body = {**self._body(exchange), "stream_options": {"include_usage": True}}
        version, created = exchange.assignment.version, int(time.time())
        pieces: list[str] = []
        reason: str | None = None
        counts = (0, 0)

        def chunk(**parts: Any) -> bytes:
            return answers.event(answers.chat_chunk(exchange.interaction_id, version, created, **parts))

        begun = stored = False
        try:
            async with aclosing(self._engines.stream(self._name(exchange), body, version)) as events:
                async for data in events:
                    if not begun:
                        begun = True
                        yield chunk(delta={"role": "assistant", "content": ""}, ratchet=exchange.origin)
                    event = _parsed(data)
                    if event.usage is not None:
                        counts = (event.usage.prompt_tokens, event.usage.completion_tokens)
                    for choice in event.choices:
                        reason = choice.finish_reason or reason
                        if choice.delta.content:
                            pieces.append(choice.delta.content)
                            yield chunk(delta={"content": choice.delta.content})
            if reason is None:
                raise Unavailable("the engine ended the answer early")
            await self._recorder.record(exchange, "".join(pieces), reason, counts)
            stored = True
            yield chunk(delta={}, finish_reason=reason, ratchet=exchange.origin)
            if exchange.request.wants_usage:
                yield chunk(counts=answers.usage(*counts))
            yield answers.event("[DONE]")
        except (RatchetError, ApiError) as error:
            translated = api_error(error)
            if not begun:
                raise translated from error
            yield answers.event(translated.body)
        finally:
            if not stored and pieces:
                # The person saw a part of it, so it happened: kept as what it is. Not awaited: we may be cancelled.
                finish_later(self._recorder.record(exchange, "".join(pieces), "cancelled", counts))

    async def _assigned(self, table: RoutingTable, unit: str) -> Assignment:
        try:
            return await self._assignments.of(table, unit)
        except (SQLAlchemyError, Unavailable):
            # How this unit was assigned before cannot be read now, and nobody may change arms.
            return _outside(table)

    def _pinned(self, model: str, key: ApiKey) -> Assignment:
        """The assignment of a request that names a version.

        Raises:
            ApiError: 404 for one that is not this tenant's, 403 without the scope.
        """
        known = model == self._job.base_name or is_published(self._job.versions_dir, model)
        if not known or not self._tables.may_name(key.tenant, model):
            raise protocol.unknown_model(model, list(self.names()))
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
        messages = [message.plain for message in exchange.request.messages]
        return {"messages": messages, **self._recorder.sampling(exchange)}


def engine_name(job: GatewayJob, version: str) -> str:
    """Return what the engines call a version: its own name, but for the base."""
    return (job.serving.base_model_name or job.base_name) if version == job.base_name else version


def _parsed(data: str) -> ChatChunk:
    """Parse one event of an engine's stream.

    Raises:
        Unavailable: it says that the answer ended early, or has another form.
    """
    try:
        chunk = ChatChunk.model_validate_json(data)
    except ValidationError as error:
        raise Unavailable("the engine streams in another form than expected") from error
    if chunk.error is not None:
        raise Unavailable(str(chunk.error.message))
    return chunk


def _outside(table: RoutingTable) -> Assignment:
    """The champion's answer, as part of no comparison."""
    return Assignment(version=table.champion, arm="champion", probability=1.0, release_seq=0)


def _cannot_serve(version: str, error: RatchetError) -> ApiError:
    return unavailable(f"version {version} cannot be served now: {error}")
