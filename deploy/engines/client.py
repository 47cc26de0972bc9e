"""Call a serving engine over HTTP: one contract, asynchronous for the gateway, plain for everybody else.

What differs between engines is said by a `Dialect`; nothing else knows which one answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from deploy.engines.answers import ChatAnswer
from deploy.engines.dialect import EMBEDDED, Dialect
from deploy.engines.protocol import Model
from infra.errors import CorruptArtifact, NotFound, RatchetError, Unavailable, UserError


class EngineRefusal(RatchetError):
    """The engine answered with an error; `status` and `body` are its own."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, dict(body), dict(headers or {})
        error = self.body.get("error")
        self.message = str(error.get("message") if isinstance(error, Mapping) else error or self.body)
        super().__init__(f"the engine answered {status}: {self.message}")

    @property
    def model_unknown(self) -> bool:
        """Whether it does not have the model that was asked for."""
        return self.status == 404


class EngineClient:
    """Plain client, for the controller, parity and tests. Close it, or use it as a context manager.

    Every method raises EngineRefusal when the engine says no, Unavailable when it does not answer.
    """

    def __init__(self, url: str, key: str, *, dialect: Dialect = EMBEDDED, timeout: float = 120.0) -> None:
        self.dialect = dialect
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def healthy(self) -> bool:
        """Check whether the engine says that it is well."""
        try:
            return self._http.get("/health", timeout=5.0).is_success
        except httpx.HTTPError:
            return False

    def models(self) -> list[str]:
        """List the names that requests may ask for."""
        return [model.id for model in _valid(_Models, self._request("GET", "/v1/models")).data]

    def load(self, name: str, path: Path) -> None:
        """Load a weights folder under a content-hash name; harmless when it is loaded already.

        Raises:
            UserError: this engine cannot serve that kind of weights.
            NotFound, CorruptArtifact: the folder is missing, or its bytes are not what the name says.
        """
        _check_servable(self.dialect, path)
        try:
            self._request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        except EngineRefusal as refusal:
            _load_refused(self.dialect, refusal)

    def unload(self, name: str, *, wait_seconds: float = 30.0) -> bool:
        """Take a name away once no answer goes through it; False when that still takes time, or it was loaded again."""
        body = {"lora_name": name} | ({"wait_seconds": wait_seconds} if self.dialect.unload_waits else {})
        answer = self._request("POST", "/v1/unload_lora_adapter", body)
        return _valid(_Unloaded, answer).status not in ("draining", "kept")

    def chat(self, body: Mapping[str, Any]) -> ChatAnswer:
        """`POST /v1/chat/completions`, whole."""
        return _valid(ChatAnswer, self._request("POST", "/v1/chat/completions", body))

    def prompt_logprobs(self, model: str, ids: Sequence[int]) -> list[float]:
        """Score the tokens 1..: log-probability of each given those before it: n - 1 values for n tokens."""
        answer = self._request("POST", "/v1/completions", _probe_body(self.dialect, model, ids))
        return _scores(_valid(_ScoredPrompt, answer), ids)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error
        return _parsed(answer)


class AsyncEngineClient:
    """The same for the gateway's event loop."""

    def __init__(self, url: str, key: str, *, dialect: Dialect = EMBEDDED, timeout: float = 300.0) -> None:
        self.dialect = dialect
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_connections=1024, max_keepalive_connections=256),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def healthy(self) -> bool:
        """Check whether the engine says that it is well."""
        try:
            return (await self._http.get("/health", timeout=5.0)).is_success
        except httpx.HTTPError:
            return False

    async def lists_models(self) -> bool:
        """Check whether it answers as OpenAI's API does; for servers that have no /health."""
        try:
            return (await self._http.get("/v1/models", timeout=5.0)).is_success
        except httpx.HTTPError:
            return False

    async def load(self, name: str, path: Path) -> None:
        """As `EngineClient.load`."""
        _check_servable(self.dialect, path)
        try:
            await self._request("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        except EngineRefusal as refusal:
            _load_refused(self.dialect, refusal)

    async def chat(self, body: Mapping[str, Any]) -> ChatAnswer:
        """`POST /v1/chat/completions`, whole."""
        return _valid(ChatAnswer, await self.chat_unparsed(body))

    async def chat_unparsed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer as it came, of a server that may say more than we understand."""
        return await self._request("POST", "/v1/chat/completions", body)

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[str]:
        """`POST /v1/chat/completions` with `stream`: the data of each server-sent event, `[DONE]` left out.

        Closing the iterator early closes the connection, which cancels the request in the engine.
        """
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
                if not answer.is_success:
                    await answer.aread()
                    _parsed(answer)
                async for line in answer.aiter_lines():
                    if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        yield data
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error
        return _parsed(answer)


def _parsed(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = {"error": {"message": answer.text[:300]}}  # vLLM answers some calls in plain text
    if not isinstance(body, dict):
        body = {"data": body}
    if not answer.is_success:
        raise EngineRefusal(answer.status_code, body, {k.lower(): v for k, v in answer.headers.items()})
    return body


def _unreachable(url: httpx.URL, error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"the engine at {url} does not answer ({type(error).__name__}: {error}); is it running?")


def _check_servable(dialect: Dialect, path: Path) -> None:
    if (why := dialect.refuses(path)) is not None:
        raise UserError(f"the engine {dialect.name} cannot serve {path}: {why}")


def _load_refused(dialect: Dialect, refusal: EngineRefusal) -> None:
    if dialect.already_loaded(refusal.status, refusal.message):
        return
    if refusal.status == 404:
        raise NotFound(refusal.message) from refusal
    if refusal.status == 422:
        raise CorruptArtifact(refusal.message) from refusal
    raise refusal


def _probe_body(dialect: Dialect, model: str, ids: Sequence[int]) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": dialect.probe_tokens,
        "prompt_logprobs": 0,
        "temperature": 0,
    }


def _scores(answer: _ScoredPrompt, ids: Sequence[int]) -> list[float]:
    scores = answer.choices[0].prompt_logprobs
    if scores is None or len(scores) != len(ids):
        raise Unavailable(f"the engine gave no log-probabilities for {len(ids)} prompt tokens; check its version")
    return [_score(scores[index], token) for index, token in enumerate(ids) if index > 0]


def _score(by_token: Mapping[str, _Score] | None, token: int) -> float:
    score = (by_token or {}).get(str(token))
    if score is None:
        raise Unavailable(f"the engine gave no log-probability for token {token}; check its version")
    return score.logprob


class _Score(BaseModel):
    logprob: float


class _ScoredChoice(BaseModel):
    prompt_logprobs: tuple[dict[str, _Score] | None, ...] | None = None


class _ScoredPrompt(BaseModel):
    """`POST /v1/completions` with `prompt_logprobs`: for each token of the prompt, token id -> its log-probability."""

    choices: tuple[_ScoredChoice, ...] = Field(min_length=1)


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: tuple[_Model, ...]


class _Unloaded(BaseModel):
    status: str | None = None


def _valid(kind: type[Model], answer: Mapping[str, Any]) -> Model:
    """Validate an engine's answer.

    Raises:
        Unavailable: it has another form.
    """
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unavailable(f"the engine answered in another form than expected: {where}: {first['msg']}") from error
