"""Each dialect's rows, written as the tools write them, become the events that they mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedback.examples import ShapeRules
from feedback.formats import FORMATS, format_of
from feedback.formats.chat import answer
from feedback.ingest.build_examples import build
from feedback.sources.mapping import RowOptions, events_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}}
AGENT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it warm in Lima?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "24 degrees"},
    {"role": "assistant", "content": "Yes, 24 degrees."},
    {"role": "user", "content": "And tomorrow?"},
    {"role": "assistant", "content": "Much the same."},
]
USER = {"role": "user", "content": "Say hello."}


def attribute(key: str, value: Any) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


def span(attributes: dict[str, Any], events: list[tuple[str, dict[str, Any]]] = []) -> dict[str, Any]:  # noqa: B006
    return {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {"traceId": "t1", "spanId": "s0", "name": "http", "attributes": []},
                            {
                                "traceId": "t1",
                                "spanId": "s1",
                                "endTimeUnixNano": "1767225600000000000",
                                "attributes": [attribute(k, v) for k, v in attributes.items()],
                                "events": [
                                    {"name": name, "attributes": [attribute(k, v) for k, v in facts.items()]}
                                    for name, facts in events
                                ],
                            },
                        ]
                    }
                ]
            }
        ]
    }


GENAI = {
    "gen_ai.operation.name": "chat",
    "gen_ai.response.model": "m1",
    "gen_ai.conversation.id": "k1",
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Say hello."}]}]),
    "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "Hi."}]}]),
}

THUMB_DOWN = {"gen_ai.evaluation.name": "thumbs", "gen_ai.evaluation.score.label": "down"}

# name -> (dialect, row, shapes of the examples it makes)
CASES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "fine-tuning file with tools and turns": (
        "openai", {"messages": AGENT, "tools": TOOLS}, ["completion", "completion", "problem", "problem"],
    ),
    "weight 0 is context": (
        "openai",
        {"messages": [*AGENT[:4], {**AGENT[4], "weight": 0}, *AGENT[5:]]},
        ["completion", "problem"],
    ),
    "content in parts": (
        "openai",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                {"role": "assistant", "content": "x"},
            ]
        },
        ["completion", "problem"],
    ),
    "preference fine-tuning": (
        "openai_dpo",
        {
            "input": {"messages": [USER], "tools": TOOLS},
            "preferred_output": [{"role": "assistant", "content": "Hello!"}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        ["preference"],
    ),
    "alpaca": ("alpaca", {"instruction": "Translate.", "input": "Hund", "output": "dog"}, ["completion", "problem"]),
    "alpaca with history and pair": (
        "alpaca",
        {"instruction": "A cat?", "history": [["Dog?", "Hund"]], "chosen": "Katze", "rejected": "Maus", "output": ""},
        ["preference"],
    ),
    "sharegpt": (
        "sharegpt",
        {
            "id": "g1",
            "conversations": [
                {"from": "human", "value": "Is it warm?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Lima"}}'},
                {"from": "observation", "value": "24"},
                {"from": "gpt", "value": "Yes."},
                {"from": "human", "value": "Thanks"},
                {"from": "gpt", "value": "Welcome."},
            ],
        },
        ["completion", "completion", "problem", "problem"],
    ),
    "sharegpt pair": (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go"},
        },
        ["preference"],
    ),
    "trl pair of texts": ("trl_preference", {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, ["preference"]),
    "trl pair with implicit prompt": (
        "trl_preference",
        {
            "chosen": [USER, {"role": "assistant", "content": "Hello"}],
            "rejected": [USER, {"role": "assistant", "content": "Go"}],
        },
        ["preference"],
    ),
    "trl kto": (
        "trl_kto",
        {"prompt": [USER], "completion": [{"role": "assistant", "content": "Hello"}], "label": True},
        ["completion", "rated"],
    ),
    "trl kto, bad": ("trl_kto", {"prompt": "Hi", "completion": "Go", "label": False}, ["rated"]),
    "trl sft": ("trl_sft", {"prompt": "Hi", "completion": "Hello"}, ["completion", "problem"]),
    "document": ("documents", {"text": "Once upon a time."}, ["document"]),
    "langfuse trace with scores": (
        "langfuse",
        {
            "id": "t1", "name": "support", "timestamp": "2026-01-02T03:04:05.000Z", "userId": "u1", "sessionId": "s1",
            "input": {"messages": [USER]}, "output": {"role": "assistant", "content": "Hi."}, "release": "v7",
            "scores": [
                {"id": "sc1", "name": "user-feedback", "value": 1, "dataType": "BOOLEAN", "source": "API"},
                {"id": "sc2", "name": "helpful", "value": 0.1, "dataType": "NUMERIC", "source": "EVAL"},
            ],
        },
        ["completion", "rated"],
    ),
    "langsmith run with feedback and correction": (
        "langsmith",
        {
            "id": "r1", "run_type": "chain", "start_time": "2026-01-02T03:04:05", "name": "support",
            "inputs": {"messages": [[{"id": ["langchain", "schema", "messages", "HumanMessage"],
                                      "kwargs": {"content": "Say hello."}}]]},
            "outputs": {"generations": [[{"text": "Hi.", "message": {"kwargs": {"content": "Hi."}}}]]},
            "extra": {"metadata": {"user_id": "u1", "session_id": "s1"}},
            "feedback": [
                {"id": "f1", "key": "user_score", "score": 0, "correction": {"output": "Hello there."}},
                {"id": "f2", "key": "judge", "score": 1, "feedback_source": {"type": "model"}},
            ],
        },
        ["completion", "preference", "rated"],
    ),
    "langsmith dataset": (
        "langsmith", {"inputs": {"question": "2+2?"}, "outputs": {"answer": "4"}}, ["completion", "problem"],
    ),
    "otel, current conventions": (
        "otel",
        span(GENAI, [("gen_ai.evaluation.result", THUMB_DOWN)]),
        ["rated"],
    ),
    "otel, message events": (
        "otel",
        span({"gen_ai.system": "x"}, [
            ("gen_ai.user.message", {"content": "Say hello."}),
            ("gen_ai.choice", {"message": '{"role": "assistant", "content": "Hi."}'}),
            ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "stars", "gen_ai.evaluation.score.value": 5}),
        ]),
        ["completion", "rated"],
    ),
    "otel, numbered attributes": (
        "otel",
        span({"gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "Hi", "gen_ai.completion.0.content": "Hi"}),
        [],
    ),
}  # fmt: skip


def events(row: dict[str, Any], **options: Any) -> tuple[list[Any], list[Any]]:
    return events_of(row, RowOptions(tenant="acme", hashed_users=True, **options), source="test", at=AT)


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_recognised_and_means_what_its_tool_says(name: str) -> None:
    dialect, row, shapes = CASES[name]
    assert format_of(row) == dialect
    interactions, feedback = events(row)
    assert interactions or shapes == ["document"]
    made = []
    for interaction in interactions or [None]:
        about = interaction.interaction_id if interaction else None
        made += build(interaction, [f for f in feedback if f.interaction_id == about], ShapeRules()).examples
    assert sorted(e.shape for e in made) == shapes
    assert events(row) == (interactions, feedback), "the same row gives the same events"


def test_every_dialect_is_tried() -> None:
    assert {dialect for dialect, _, _ in CASES.values()} == FORMATS.keys()
    here = {path.stem for path in Path(FORMATS["openai"].__file__).parent.glob("*.py")}  # type: ignore[attr-defined]
    assert here - {"__init__", "chat", "timestamps"} == FORMATS.keys()


JSON_TEXTS = ('{"topic": "billing"}', '[{"topic": "billing"}]', '{"answer": "yes", "text": "no"}', "[1, 2]", '{"a": 1')


@pytest.mark.parametrize("said", JSON_TEXTS)
def test_an_answer_that_is_json_stays_what_was_said(said: str) -> None:
    asked = '{"order": 7}'
    for row, cell in (
        ({"prompt": asked, "completion": said}, "reference"),
        ({"prompt": asked, "completion": said, "label": True}, "answer"),
        ({"prompt": asked, "chosen": said, "rejected": "no"}, "chosen"),
    ):
        [cells] = FORMATS[format_of(row)].rows(row)
        assert cells[cell] == said
        assert cells["messages"] == [{"role": "user", "content": asked}]
    run = {"id": "r1", "run_type": "chain", "start_time": "2026-01-02T03:04:05", "inputs": {"question": "which?"}}
    [cells] = FORMATS["langsmith"].rows(run | {"outputs": {"answer": said}})
    assert cells["answer"] == said
    assert answer(json.dumps({"role": "assistant", "content": said})) == said  # a wrapping is opened, once
    assert answer(json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})) == said


def test_tool_calls_turns_and_tools_survive() -> None:
    interactions, feedback = events({"messages": AGENT, "tools": TOOLS})
    last = interactions[-1]
    assert [m.role for m in last.messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert last.messages[2].tool_calls == (CALL,) and last.messages[3].tool_call_id == "c1"
    assert last.sampling == {"tools": TOOLS}
    assert len({i.session for i in interactions}) == 1 and len({f.event_id for f in feedback}) == 2


def test_who_said_it_and_when_come_along() -> None:
    (interaction,), (thumb,) = events(CASES["langfuse trace with scores"][1])
    assert (interaction.user, interaction.session, interaction.version, interaction.task) == (
        "u1",
        "s1",
        "v7",
        "support",
    )
    assert (thumb.event_id, thumb.actor, thumb.value.up) == ("lf-sc1", "u1", True)
    assert interaction.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_span_as_openllmetry_writes_it() -> None:
    """Version 0.62 around OpenAI's client, a call with a tool's result in it, encoded by OpenTelemetry's exporter."""
    weather = {"type": "function", "name": "weather", "description": "w", "parameters": {"type": "object"}}
    asked = [
        {"role": "system", "parts": [{"content": "Be brief.", "type": "text"}]},
        {"role": "user", "parts": [{"content": "Is it warm in Lima?", "type": "text"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "name": "weather", "id": "c1", "arguments": {"city": "Lima"}}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "24 degrees"}]},
    ]
    reply = [
        {
            "role": "assistant",
            "parts": [{"content": "Yes, 24 degrees.", "type": "text"}],
            "finish_reason": "stop",
        }
    ]
    row = span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "m1",
            "gen_ai.input.messages": json.dumps(asked),
            "gen_ai.tool.definitions": json.dumps([weather]),
            "gen_ai.response.model": "m1",
            "gen_ai.response.id": "chatcmpl-4",
            "gen_ai.output.messages": json.dumps(reply),
        }
    )
    (interaction,), [] = events(row)
    assert [m.role for m in interaction.messages] == ["system", "user", "assistant", "tool"]
    assert interaction.messages[2].tool_calls is not None
    assert interaction.messages[2].tool_calls[0]["function"] == {"name": "weather", "arguments": '{"city": "Lima"}'}
    assert (interaction.interaction_id, interaction.answer) == ("chatcmpl-4", "Yes, 24 degrees.")
    assert interaction.sampling == {"tools": [weather]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]}, "no answer in words"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "image_url"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"prompt": "a", "completion": "b", "label": "maybe"}, "label"),
        ({"foo": 1}, "no known form"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(row: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        events(row)


leaf = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=6)
value = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["role", "content", "messages", "value", "from", "input", "id", "kwargs", "type", "text"]),
    inner, max_size=3
), max_leaves=8)  # fmt: skip
NAMES = sorted({key for _, row, _ in CASES.values() for key in row})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(NAMES), value, max_size=5))
def test_no_row_crashes_a_source(row: dict[str, Any]) -> None:
    from feedback.sources.files import add_row
    from feedback.sources.landing import Lot

    lot = Lot(watermark=None)
    add_row(lot, "1", row, RowOptions(tenant="acme", hashed_users=True), source="fuzz", at=AT)
    assert lot.rejects or lot.interactions or lot.feedback or format_of(row) == "otel"
