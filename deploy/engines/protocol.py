"""Parse and write the part of OpenAI's protocol that serving engines and gateway speak: requests, answers, errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from infra.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class ApiError(Exception):
    """An error in OpenAI's form. `kind` is its type, `code` its machine-readable name."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.code, self.param = status, message, kind, code, param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]
"""An integer as JSON Schema means it (2020-12, core, section 6.3): 5.0 is one, 5.5 and "5" are none."""


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(frozen=True)
    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """One message of a chat request."""

    model_config = ConfigDict(frozen=True)
    role: str = Field(pattern="^(system|developer|user|assistant|tool)$")
    content: str | tuple[TextPart, ...] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            if part.type != "text":
                raise ApiError(400, f"content of type {part.type!r} is not supported; send text", param="messages")
        return "".join(part.text for part in self.content)

    @property
    def plain(self) -> dict[str, str]:
        """Role and text, as chat templates take them."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text}


class StreamOptions(BaseModel):
    """What a stream should carry besides the text."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    include_usage: bool = False


class ResponseFormat(BaseModel):
    """The form asked of an answer; only plain text is supported."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: str


class Sampling(BaseModel):
    """Settings that chat and text completions share; unknown ones are ignored, as OpenAI-compatible servers do."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Integer | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | tuple[str, ...] | None = None
    max_tokens: Integer | None = Field(default=None, ge=0, le=10_000_000)
    n: Integer | None = None
    user: str | None = Field(default=None, max_length=200)

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        found = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        if len(found) > 16:
            raise ApiError(400, f"{len(found)} stop strings; at most 16 are supported", param="stop")
        return tuple(text for text in found if text)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream should end with a chunk that counts tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(Sampling):
    """`POST /v1/chat/completions`."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    max_completion_tokens: Integer | None = Field(default=None, ge=1, le=10_000_000)
    tools: tuple[Any, ...] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None

    def check(self) -> None:
        """Refuse what would otherwise be ignored and give a wrong answer."""
        form = self.response_format
        for name, given in (
            ("n", self.n not in (None, 1)),
            ("tools", bool(self.tools)),
            ("logprobs", bool(self.logprobs)),
            ("response_format", form is not None and form.type != "text"),
        ):
            if given:
                raise ApiError(400, f"{name} is not supported by this server; leave it out", param=name)


class CompletionRequest(Sampling):
    """`POST /v1/completions`, with a text or token ids."""

    prompt: str | tuple[int, ...]
    prompt_logprobs: Integer | None = Field(default=None, ge=0)


def parse(kind: type[Model], body: bytes) -> Model:
    """Parse the request in `body`.

    Raises:
        ApiError: 400 that names the field and what is wrong with it.
    """
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"the body is not JSON: {first['msg']}") from error
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where or 'body'}: {first['msg']}", param=where or None) from error


def refused(error: UserError) -> ApiError:
    """A request that the model cannot answer, in OpenAI's form."""
    message = str(error)
    code = "context_length_exceeded" if "context length" in message else None
    return ApiError(400, message, code=code, param="messages" if code else None)


def unknown_model(name: str, known: list[str]) -> ApiError:
    """The model asked for is not there."""
    return ApiError(
        404, f"the model {name!r} does not exist; there are: {', '.join(known)}", code="model_not_found", param="model"
    )


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
    """One server-sent event."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n".encode()
