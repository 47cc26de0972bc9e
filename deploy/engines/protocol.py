"""Parse and write the part of OpenAI's protocol that serving engines and gateway speak: requests and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

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


WHOLE = BeforeValidator(_whole)
"""Takes an integer as JSON Schema means it (2020-12, core, section 6.3): 5.0 is one, 5.5 and "5" are none."""


# What a schema says of a field where it is parsed more widely, because `ChatRequest.check` refuses the rest in words of
# its own, or because an upstream server may understand it.
_NONE = {"type": "null"}
_STOP = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 16}, _NONE]}
_TEXT = {"type": "object", "properties": {"type": {"const": "text"}}, "required": ["type"]}
ROLES = ("system", "developer", "user", "assistant", "tool")


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(frozen=True)
    type: Annotated[str, WithJsonSchema({"const": "text"})]
    text: str = ""


class ChatMessage(BaseModel):
    """One message of a chat request."""

    model_config = ConfigDict(frozen=True)
    role: Annotated[str, Field(pattern=f"^({'|'.join(ROLES)})$"), WithJsonSchema({"enum": list(ROLES)})]
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
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE] | None = None
    stop: Annotated[str | tuple[str, ...] | None, WithJsonSchema(_STOP)] = None
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000), WHOLE] | None = None
    n: Annotated[Annotated[int, WHOLE] | None, WithJsonSchema({"enum": [1, None]})] = None
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
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | None = None
    tools: Annotated[tuple[Any, ...] | None, WithJsonSchema({"enum": [None, []]})] = None
    response_format: Annotated[ResponseFormat | None, WithJsonSchema({"anyOf": [_TEXT, _NONE]})] = None
    logprobs: Annotated[bool | None, WithJsonSchema({"enum": [None, False]})] = None

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
    prompt_logprobs: Annotated[int, Field(ge=0), WHOLE] | None = None


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
    """Make the error for a request that the model cannot answer, in OpenAI's form."""
    message = str(error)
    code = "context_length_exceeded" if "context length" in message else None
    return ApiError(400, message, code=code, param="messages" if code else None)


def unknown_model(name: str, known: list[str]) -> ApiError:
    """Make the error for a model that is not there."""
    return ApiError(
        404, f"the model {name!r} does not exist; there are: {', '.join(known)}", code="model_not_found", param="model"
    )
