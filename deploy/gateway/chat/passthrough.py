"""Pass-through: an endpoint that a team already runs stays the champion; the gateway only captures beside it.

The request goes on as it came (tools, images and all), only the model's name is its own; so does the answer, only its
id is ours, because feedback names it. What is kept is the text: calls of tools as such, other content by its type.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from deploy.engines import protocol
from deploy.engines.client import AsyncEngineClient, EngineRefusal
from deploy.engines.protocol import ApiError
from deploy.gateway.chat.answer import unfinished
from deploy.gateway.chat.exchange import Exchange
from deploy.gateway.chat.record import InteractionRecorder, unavailable
from deploy.gateway.chat.tool_calls import answer_text, assembled, object_of, objects
from feedback.events import Message
from infra.errors import Unavailable


class Passthrough:
    """The upstream champion, asked as its clients would ask it."""

    def __init__(self, client: AsyncEngineClient, model: str, keeping: InteractionRecorder) -> None:
        self._client, self._model, self._keeping = client, model, keeping

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def healthy(self) -> bool:
        """Whether it lists its models."""
        return await self._client.lists_models()

    async def whole(self, exchange: Exchange) -> dict[str, Any]:
        """The answer in one piece; it is stored when this returns."""
        kept = _kept(exchange)
        try:
            answer = await self._client.chat(self._body(exchange))
        except EngineRefusal as refusal:
            raise as_it_said(refusal) from refusal
        except Unavailable as error:
            raise unavailable(str(error)) from error
        choice = next(iter(objects(answer.get("choices"))), {})
        said = _said(object_of(choice.get("message")))
        await self._keep(exchange, kept, said, str(choice.get("finish_reason")), answer)
        return {**answer, "id": exchange.interaction_id, "ratchet": exchange.facts}

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Its server-sent events, the last of them after the answer is stored."""
        pieces: list[str] = []
        calls: list[Mapping[str, Any]] = []
        reason: str | None = None
        usage: Mapping[str, Any] = {}
        begun = stored = False
        held: bytes | None = None
        kept = _kept(exchange)
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
                    held = protocol.event({**value, "id": exchange.interaction_id, "ratchet": exchange.facts})
            # The last event waits until the answer is stored.
            said = answer_text("".join(pieces), assembled(calls))
            await self._keep(exchange, kept, said, str(reason or "unknown"), {"usage": usage})
            stored = True
            if held is not None:
                yield held
            yield protocol.event("[DONE]")
        except (EngineRefusal, Unavailable, ApiError) as error:
            told = error if isinstance(error, ApiError) else unavailable(str(error))
            if isinstance(error, EngineRefusal):
                told = as_it_said(error)
            if not begun:
                raise told from error
            yield protocol.event(told.body)
        finally:
            if not stored and any(pieces):
                unfinished(self._keep(exchange, kept, "".join(pieces), "cancelled", {"usage": usage}))

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        assert exchange.raw is not None, "pass-through without the request as it came"
        return {**exchange.raw, "model": self._model}

    async def _keep(
        self, exchange: Exchange, asked: list[Message], text: str, reason: str, answer: Mapping[str, Any]
    ) -> None:
        usage = object_of(answer.get("usage"))
        counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        await self._keeping.keep(exchange, text, reason, counts, messages=asked)


def _kept(exchange: Exchange) -> list[Message]:
    """The prompt as it will be kept: made before the upstream is asked, which costs money, so that nothing of it is
    refused afterwards."""
    assert exchange.raw is not None, "pass-through without the request as it came"
    return captured(exchange.raw["messages"])


def captured(messages: list[dict[str, Any]]) -> list[Message]:
    """The prompt as it is kept: text as text, other content as its type in brackets.

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


def _said(message: Mapping[str, Any]) -> str:
    return answer_text(message.get("content"), objects(message.get("tool_calls")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def as_it_said(refusal: EngineRefusal) -> ApiError:
    """The upstream's own refusal, status and all; its failures as 503."""
    if refusal.status >= 500:
        return unavailable(refusal.message)
    error = refusal.body.get("error")
    details = error if isinstance(error, dict) else {}
    retry = {"Retry-After": refusal.headers["retry-after"]} if "retry-after" in refusal.headers else {}
    if refusal.status in (401, 403):
        # Our key, not the caller's: nothing the caller could mend.
        return unavailable(f"the upstream champion refuses our key: {refusal.message}; check RATCHET_UPSTREAM_KEY")
    return ApiError(
        refusal.status,
        refusal.message,
        kind=str(details.get("type") or "invalid_request_error"),
        code=details.get("code"),
        param=details.get("param"),
        headers=retry,
    )
