"""Other people's clients against the gateway: LangChain, and schemathesis with our own OpenAPI document."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable

from tests.deploy.serving_stack import Stack


def test_langchain_chats_streams_and_names_its_user(serving: Stack) -> None:
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    from feedback.store.store import Store
    from feedback.store.user_salt import pseudonym
    from tests.deploy.serving_stack import SALT

    model = ChatOpenAI(  # type: ignore[call-arg]  # they name their fields by aliases
        model="desk",
        base_url=f"{serving.url}/v1",
        api_key=SecretStr(serving.key("chat")),
        temperature=0,
        max_retries=0,
        model_kwargs={"user": "ada"},
        max_tokens=6,
    )
    messages = [SystemMessage("You are a helpful assistant."), HumanMessage("refund")]
    whole = model.invoke(messages)
    assert whole.response_metadata["finish_reason"] == "length"
    assert whole.usage_metadata is not None and whole.usage_metadata["output_tokens"] == 6
    assert "".join(str(piece.content) for piece in model.stream(messages)) == whole.content
    kept = Store(serving.database).interaction("default", str(whole.response_metadata["id"]))
    assert kept is not None and kept.user == pseudonym("ada", SALT)


def test_schemathesis_finds_nothing_against_the_openapi_document(serving: Stack, tmp_path: Path) -> None:
    """Valid and invalid requests made from the document: no 5xx, no answer that it does not describe."""
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.core.result import Ok

    document = httpx.get(f"{serving.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/feedback", "/v1/arena", "/v1/arena/choice", "/v1/models"} <= set(
        document["paths"]
    )
    # Every request here bears a key, so leaving it out (schemathesis overwrites it) would make no request a wrong one.
    document.pop("security", None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=serving.url)
    headers = {"Authorization": f"Bearer {serving.key('chat', 'feedback')}"}
    seen: dict[str, int] = {}
    for found in schema.include(path_regex="^/v1/").get_all_operations():
        assert isinstance(found, Ok), found
        for mode in GenerationMode:
            with suppress(Unsatisfiable):  # nothing of it can be wrong: a GET without parameters
                _check(found.ok().as_strategy(generation_mode=mode), headers, seen)
    assert set(seen) == {path for path in document["paths"] if path.startswith("/v1/")}


def _check(strategy: Any, headers: dict[str, str], seen: dict[str, int]) -> None:
    @given(case=strategy)
    @settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def holds(case: Any) -> None:
        if case.meta.generation.mode.is_positive and isinstance(case.body, dict) and "messages" in case.body:
            # An answer as long as the document allows would take minutes on the model of the tests.
            case.body = {**case.body, "max_tokens": 1, "max_completion_tokens": 1}
        if not case.meta.generation.mode.is_positive and isinstance(case.body, dict):
            score, scale = case.body.get("score"), case.body.get("scale", 5)
            # "At most its scale" cannot be said in a schema; the document allows less than the server takes.
            assume(not (isinstance(score, int | float) and isinstance(scale, int | float) and 5 < score <= scale))
        seen[case.path] = seen.get(case.path, 0) + 1
        case.call_and_validate(headers=headers, timeout=300)

    holds()
