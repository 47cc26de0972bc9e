"""What LangChain and LangSmith's own client send for runs and feedback, taken in as an export has it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from feedback.examples import ShapeRules
from feedback.formats import format_of
from feedback.ingest.build_examples import build
from feedback.sources.mapping import RowOptions, events_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


class Received:
    """A server in LangSmith's place: it keeps what it is sent, patches put into their runs."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []
        received = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path.endswith("/feedback"):
                    received.feedback.append(body)
                else:
                    run = received.runs.setdefault(str(body.get("id") or self.path.rsplit("/", 1)[1]), {})
                    run.update({name: value for name, value in body.items() if value is not None})
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_PATCH = _take

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    """Three conversations: in plain words, with a tool, and through a chain; the first was judged and corrected."""
    from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.tracers import LangChainTracer
    from langsmith import Client
    from langsmith.schemas import LangSmithInfo

    there = Received()
    threading.Thread(target=there.server.serve_forever, daemon=True).start()
    info = LangSmithInfo(version="0.9.0", instance_flags={})
    client = Client(api_url=there.url, api_key="k", auto_batch_tracing=False, info=info)
    tracer = LangChainTracer(project_name="desk", client=client)
    config: Any = {"callbacks": [tracer], "metadata": {"user_id": "ada", "session_id": "s1"}}
    calling = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Lima"}, "id": "c1"}])
    model = FakeMessagesListChatModel(
        responses=[AIMessage("Yes."), AIMessage("24 degrees."), AIMessage("Much the same.")]
    )
    model.invoke([SystemMessage("Be brief."), HumanMessage("Is it warm?")], config=config)
    after = [HumanMessage("How warm?"), calling, ToolMessage("24", tool_call_id="c1")]
    model.invoke(after, config=config, tools=[WEATHER])
    template = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    (template | model | StrOutputParser()).invoke({"question": "And tomorrow?"}, config=config)
    tracer.wait_for_futures()
    first = next(iter(there.runs))
    client.create_feedback(first, "user_score", score=0, correction={"output": "Yes, 24 degrees."}, trace_id=first)
    client.flush()
    yield there
    there.server.shutdown()
    there.server.server_close()


def events(row: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    assert format_of(row) == "langsmith"
    return events_of(row, RowOptions(tenant="acme", hashed_users=True), source="test", at=AT)


def test_runs_that_answer_become_interactions_and_the_rest_is_passed_over(received: Received) -> None:
    kinds = sorted(run["run_type"] for run in received.runs.values())
    assert kinds == ["chain", "llm", "llm", "llm", "parser", "prompt"]
    made = {run["name"]: events(run)[0] for run in received.runs.values() if run["run_type"] not in ("llm", "chain")}
    assert set(map(len, made.values())) == {0}
    found = [one for run in received.runs.values() for one in events(run)[0]]
    assert [one.answer for one in found] == ["Yes.", "24 degrees.", "Much the same.", "Much the same."]
    assert {one.user for one in found} == {"ada"} and {one.session for one in found} == {"s1"}
    plain, tools, chain, inner = found
    assert [(m.role, m.content) for m in plain.messages] == [("system", "Be brief."), ("user", "Is it warm?")]
    assert [m.role for m in tools.messages] == ["user", "assistant", "tool"]
    assert tools.messages[1].tool_calls[0]["function"] == {"name": "weather", "arguments": '{"city": "Lima"}'}
    assert tools.messages[2].tool_call_id == "c1" and tools.sampling == {"tools": [WEATHER]}
    assert [m.content for m in chain.messages] == ["And tomorrow?"]
    assert [m.content for m in inner.messages] == ["Be brief.", "And tomorrow?"]


def test_what_a_person_said_of_a_run_is_feedback_on_it(received: Received) -> None:
    [said] = received.feedback
    first = next(iter(received.runs.values()))
    [interaction], [] = events(first)
    no_interaction, words = events(said)
    assert no_interaction == [] and {word.interaction_id for word in words} == {interaction.interaction_id}
    assert sorted(word.kind for word in words) == ["edit", "thumb"]
    shapes = [example.shape for example in build(interaction, words, ShapeRules()).examples]
    assert sorted(shapes) == ["completion", "preference", "rated"]
