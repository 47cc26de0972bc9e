"""Answer chat and text completions with the embedded engine's worker."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deploy.engines import answers, protocol
from deploy.engines.adapter_registry import AdapterRegistry
from deploy.engines.answers import event
from deploy.engines.client_disconnect import cancel_on_disconnect, first_or_disconnect
from deploy.engines.protocol import ApiError, ChatRequest, CompletionRequest, Sampling
from deploy.engines.worker import Worker
from infra.errors import Unavailable, UserError
from training.generation.generator import Generator, Step
from training.generation.generator import Request as Prompt


class Completions:
    """Answers requests with one worker.

    Args:
        max_tokens: answer length where the client names none.
    """

    def __init__(self, worker: Worker, adapters: AdapterRegistry, *, max_tokens: int) -> None:
        self._worker, self._adapters, self._max_tokens = worker, adapters, max_tokens

    async def complete(self, http: Request, request: CompletionRequest) -> dict[str, Any]:
        """`POST /v1/completions`."""
        if request.stream or request.n not in (None, 1):
            raise ApiError(400, "stream and n are not supported for text completions; use chat completions")
        worker, generator = self._worker, self._worker.generator
        adapter = self._adapters.adapter(request.model)
        ids = generator.encode(request.prompt) if isinstance(request.prompt, str) else request.prompt
        _check_ids(ids, generator)
        # The whole exchange counts as one use of the adapter, so it is not taken away in the middle.
        with worker.keep_loaded(adapter):
            scores = None
            if request.prompt_logprobs is not None:
                values = (await worker.call(lambda: generator.logprobs(adapter, [ids])))[0]
                scores = [
                    None, *({str(token): {"logprob": value}} for token, value in zip(ids[1:], values, strict=True))
                ]  # fmt: skip
            answer = None
            if request.max_tokens != 0:
                prompt = _prompt(request, ids, adapter, request.max_tokens or 16)
                answer = await cancel_on_disconnect(http, worker.complete(prompt))
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
            "model": request.model,
            "choices": [choice],
            "usage": answers.usage(len(ids), answer.completion_tokens if answer else 0),
        }

    async def chat(self, http: Request, request: ChatRequest) -> Response:
        """`POST /v1/chat/completions`."""
        request.check()
        worker, generator = self._worker, self._worker.generator
        adapter = self._adapters.adapter(request.model)
        messages = [message.plain for message in request.messages]
        ids = generator.encode_chat(messages)
        limit = request.max_completion_tokens or request.max_tokens or self._max_tokens
        prompt = _prompt(request, ids, adapter, limit, prefix_len=_system_prefix(generator, messages, ids))
        if not request.stream:
            with worker.keep_loaded(adapter):
                done = await cancel_on_disconnect(http, worker.complete(prompt))
            counts = answers.usage(done.prompt_tokens, done.completion_tokens)
            body = answers.chat_answer(_answer_id(prompt), request.model, done.text, done.finish_reason, counts)
            return JSONResponse(body)
        steps = worker.answer(prompt)
        # The first step is awaited before the response begins, so that a refusal still is a plain HTTP error.
        first = await first_or_disconnect(http, steps)
        return StreamingResponse(_chunks(request, _answer_id(prompt), first, steps), media_type="text/event-stream")


async def _chunks(
    request: ChatRequest, answer_id: str, step: Step, steps: AsyncGenerator[Step]
) -> AsyncIterator[bytes]:
    """Server-sent events of an answer whose first step is there."""
    created = int(time.time())

    def chunk(**parts: Any) -> bytes:
        return event(answers.chat_chunk(answer_id, request.model, created, **parts))

    try:
        yield chunk(delta={"role": "assistant", "content": ""})
        while True:
            if step.text:
                yield chunk(delta={"content": step.text})
            if step.completion is not None:
                break
            step = await anext(steps)
        done = step.completion
        yield chunk(delta={}, finish_reason=done.finish_reason)
        if request.wants_usage:
            yield chunk(counts=answers.usage(done.prompt_tokens, done.completion_tokens))
        yield event("[DONE]")
    except Unavailable as error:
        yield event(ApiError(503, str(error), kind="server_error").body)
    finally:
        await steps.aclose()


def _answer_id(prompt: Prompt) -> str:
    return f"chatcmpl-{prompt.request_id}"


def _prompt(request: Sampling, ids: tuple[int, ...], adapter: str | None, limit: int, *, prefix_len: int = 0) -> Prompt:
    return Prompt(
        prompt_ids=ids,
        request_id=uuid.uuid4().hex,
        adapter=adapter,
        max_tokens=limit,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed,
        stop=request.stops,
        stream=request.stream,
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
