"""Calls of tools that come in pieces are kept whole."""

from __future__ import annotations

import json

from deploy.gateway.chat.tool_calls import answer_text, assembled, object_of, objects


def test_the_pieces_of_a_stream_make_the_calls_that_one_piece_would_hold() -> None:
    deltas = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": '"Lima"}', "name": None}},
    ]
    weather, time = assembled(deltas)
    assert weather == {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Lima"}'},
    }
    assert time == {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    assert assembled([]) == []


def test_what_is_no_call_stops_nothing() -> None:
    assert objects(5) == objects({"a": 1}) == [] and objects([5, {"a": 1}]) == [{"a": 1}]
    assert object_of([1]) == {}
    [call] = assembled([{"index": [], "function": 5, "id": "c1"}])
    assert call == {"id": "c1", "function": {"arguments": ""}}
    [call] = assembled([{"index": 0, "function": {"arguments": 5}}, {"index": 0, "function": {"arguments": "6"}}])
    assert call["function"]["arguments"] == "56"


def test_what_is_said_beside_calls_is_kept_with_them() -> None:
    call = {"id": "c1", "function": {"name": "time", "arguments": "{}"}}
    said, called = answer_text("One moment.", [call]).split("\n")
    assert said == "One moment." and json.loads(called) == call
    assert answer_text("Hello.", []) == "Hello." and answer_text(None, []) == ""
