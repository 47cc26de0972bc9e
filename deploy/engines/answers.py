"""Parse and write answers in OpenAI's form: whole ones, the chunks of a stream, and token counts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field


class Usage(BaseModel):
    """Token counts, as an engine answers them."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(default=0, ge=0)


class AnswerMessage(BaseModel):
    """What the model answered."""

    role: Literal["assistant"] = "assistant"
    content: str | None


class AnswerChoice(BaseModel):
    """The one answer; more than one are not supported."""

    index: int = Field(default=0, ge=0)
    message: AnswerMessage
    finish_reason: str


class ChatAnswer(BaseModel):
    """`POST /v1/chat/completions`, answered whole."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(default=0, ge=0)
    model: str
    choices: tuple[AnswerChoice, ...] = Field(min_length=1)
    usage: Usage

    @property
    def text(self) -> str:
        """The answer as one text."""
        return self.choices[0].message.content or ""

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return self.choices[0].finish_reason


class Delta(BaseModel):
    """A piece of a streamed answer."""

    content: str | None = None


class ChunkChoice(BaseModel):
    """The one answer, as far as this chunk goes."""

    delta: Delta
    finish_reason: str | None = None


class StreamError(BaseModel):
    """What ended a stream early."""

    message: str | None = None


class ChatChunk(BaseModel):
    """One server-sent event of a streamed answer; one that only counts tokens has no choices."""

    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    error: StreamError | None = None


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Write token counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def chat_answer(
    answer_id: str, model: str, text: str, finish_reason: str, counts: dict[str, int], **extra: Any
) -> dict[str, Any]:
    """Write a whole answer."""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": counts,
        **extra,
    }


def chat_chunk(
    answer_id: str,
    model: str,
    created: int,
    *,
    delta: dict[str, Any] | None = None,
    finish_reason: str | None = None,
    counts: dict[str, int] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Write one chunk of a stream; without `delta` it has no choices (the chunk that counts tokens)."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]
    return {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
        **({"usage": counts} if counts is not None else {}),
        **extra,
    }


def event(value: Mapping[str, Any] | str) -> bytes:
    """Write one server-sent event."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n".encode()
