"""Requests as typed values: what counts as a number, and what a refusal says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.engines.protocol import ApiError, ChatRequest, parse


def _parsed(**fields: Any) -> ChatRequest:
    body = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], **fields}
    found: ChatRequest = parse(ChatRequest, json.dumps(body).encode())
    return found


def test_a_number_without_a_fraction_is_an_integer_as_json_schema_has_it() -> None:
    asked = _parsed(seed=-106668.0, max_tokens=5.0, max_completion_tokens=7, n=1.0)
    assert (asked.seed, asked.max_tokens, asked.max_completion_tokens, asked.n) == (-106668, 5, 7, 1)
    assert isinstance(asked.seed, int)


@pytest.mark.parametrize("value", [5.5, "5", True, [5]])
def test_anything_else_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ApiError, match="seed: Input should be a valid integer") as refused:
        _parsed(seed=value)
    assert (refused.value.status, refused.value.body["error"]["param"]) == (400, "seed")


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(ApiError, match="the body is not JSON"):
        parse(ChatRequest, b"{")
