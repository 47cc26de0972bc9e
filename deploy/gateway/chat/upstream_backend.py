"""Pass requests through to an endpoint that a team already runs: it stays the champion, the gateway captures beside it.

The request goes on as it came (tools, images and all), only the model's name is its own; so does the answer, only its
id is ours, because feedback names it. What is kept is the text: calls of tools as such, other content by its type.
Versions that are asked for by name, and the arena's, are answered by our own engines.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from deploy.engines import answers
from deploy.engines.client import AsyncEngineClient, EngineRefusal
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.chat.engine_errors import finish_later, upstream_error
from deploy.gateway.chat.exchange import Caller, Exchange, new_interaction_id
from deploy.gateway.chat.record import InteractionRecorder
from deploy.gateway.chat.serving_backend import ServingBackend
from deploy.gateway.chat.tool_calls import answer_text, assembled, object_of, objects
from deploy.gateway.routing.assign import Assignment
from deploy.gateway.routing.follow_ledger import RoutingTables
from feedback.events import Message
from infra.errors import Unavailable


class UpstreamBackend:
    """The upstream champion, asked as its clients would ask it."""

    def __init__(
        self,
        client: AsyncEngineClient,
        model: str,
        *,
        version: str,
        own: ServingBackend,
        tables: RoutingTables,
        recorder: InteractionRecorder,
        salt: str,
    ) -> None:
        self._client, self._model, self._version = client, model, version
        self._own, self._tables, self._recorder, self._salt = own, tables, recorder, salt

    def names(self) -> tuple[str, ...]:
        """As `Backend.names`."""
        return (*self._own.names(), self._model)

    def champion(self, tenant: str) -> str:
        """As `Backend.champion`."""
        return self._version

    async def outage(self) -> str | None:
        """As `Backend.outage`."""
        return None if await self._client.lists_models() else "the upstream champion does not answer"

    async def close(self) -> None:
        """As `Backend.close`."""
        await self._client.close()
        await self._own.close()

    async def route(self, request: ChatRequest, caller: Caller, body: bytes) -> Exchange:
        """As `Backend.route`."""
        if request.model not in self.names():
            return await self._own.route(request, caller, body)
        interaction_id = new_interaction_id()
        return Exchange(
            request=request,
            caller=caller,
            table=self._tables.of(caller.key.tenant),
            interaction_id=interaction_id,
            # The ledger's releases answer nobody here, so this is part of none.
            assignment=Assignment(version=self._version, arm="champion", probability=1.0, release_seq=0),
            unit=caller.unit(self._salt) or interaction_id,
            raw=json.loads(body),
        )

    async def answer(self, exchange: Exchange) -> dict[str, Any]:
        """As `Backend.answer`."""
        if exchange.assignment.version != self._version:
            return await self._own.answer(exchange)
        prompt = _prompt(exchange)
        try:
            answer = await self._client.chat_unparsed(self._body(exchange))
        except (EngineRefusal, Unavailable) as error:
            raise upstream_error(error) from error
        choice = next(iter(objects(answer.get("choices"))), {})
        text = _text(object_of(choice.get("message")))
        await self._record(exchange, prompt, text, str(choice.get("finish_reason")), object_of(answer.get("usage")))
        return {**answer, "id": exchange.interaction_id, "ratchet": exchange.origin}

    def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """As `Backend.stream`."""
        if exchange.assignment.version != self._version:
            return self._own.stream(exchange)
        return self._stream(exchange)

    async def _stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        pieces: list[str] = []
        calls: list[Mapping[str, Any]] = []
        reason: str | None = None
        usage: Mapping[str, Any] = {}
        begun = stored = False
        held: bytes | None = None
        prompt = _prompt(exchange)
        try:
            async with aclosing(self._client.stream(self._body(exchange))) as events:
                async for data in events:
                    value = object_of(json.loads(data))
                    if held is not None:
                        yield held
                    usage = object_of(value.get("usage")) or usage
                    for choice in objects(value.get("choices")):
                        delta = object_of(choice.get("delta"))
                        reason = choice.get("finish_reason") or reason
                        if not choice.get("index"):
                            pieces.append(str(delta.get("content") or ""))
                            calls += objects(delta.get("tool_calls"))
                    begun = True
                    held = answers.event({**value, "id": exchange.interaction_id, "ratchet": exchange.origin})
            # The last event waits until the answer is stored.
            text = answer_text("".join(pieces), assembled(calls))
            await self._record(exchange, prompt, text, str(reason or "unknown"), usage)
            stored = True
            if held is not None:
                yield held
            yield answers.event("[DONE]")
        except (EngineRefusal, Unavailable, ApiError) as error:
            translated = upstream_error(error)
            if not begun:
                raise translated from error
            yield answers.event(translated.body)
        finally:
            if not stored and any(pieces):
                finish_later(self._record(exchange, prompt, "".join(pieces), "cancelled", usage))

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        assert exchange.raw is not None, "pass-through without the request as it came"
        return {**exchange.raw, "model": self._model}

    async def _record(
        self, exchange: Exchange, prompt: list[Message], text: str, reason: str, usage: Mapping[str, Any]
    ) -> None:
        counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        await self._recorder.record(exchange, text, reason, counts, messages=prompt)


def _prompt(exchange: Exchange) -> list[Message]:
    """The prompt as it will be kept: made before the upstream is asked, which costs money, so that nothing of it is
    refused afterwards."""
    assert exchange.raw is not None, "pass-through without the request as it came"
    return captured(exchange.raw["messages"])


def captured(messages: list[dict[str, Any]]) -> list[Message]:
    """Return the prompt as it is kept: text as text, other content as its type in brackets.

    Raises:
        ApiError: 400 for a message without a role that is known, or with calls of tools that are none.
    """
    kept = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text") or f"[{part.get('type')}]") for part in objects(content))
        role = "system" if message.get("role") == "developer" else message.get("role")
        calls = message.get("tool_calls")
        if calls and not (isinstance(calls, list) and len(objects(calls)) == len(calls)):
            raise ApiError(400, "messages: tool_calls must be a list of calls", param="messages")
        try:
            kept.append(
                Message.model_validate(
                    {
                        "role": role,
                        "content": content or "",
                        "name": message.get("name"),
                        "tool_calls": tuple(calls) if calls else None,
                        "tool_call_id": message.get("tool_call_id"),
                    }
                )
            )
        except ValidationError as error:
            raise ApiError(400, f"messages: {error.errors()[0]['msg']}", param="messages") from error
    return kept


def _text(message: Mapping[str, Any]) -> str:
    return answer_text(message.get("content"), objects(message.get("tool_calls")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
