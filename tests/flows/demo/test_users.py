"""The demo's people against a small real HTTP server that answers like the gateway."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flows.demo.users import Answered, Desk, Manners, agents, customers, examine, open_shop, poisoners
from flows.demo.world import SABOTAGE, parse_triage, tickets


class Counter(ThreadingHTTPServer):
    """Answers every second ticket right, keeps what it was told, and is busy at every fifth request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.known = {t.text: t for s in ("a", "p") for t in tickets(seed=1, stream=s, count=80, late=False)}
        self.chats: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []
        self.requests = 0
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Counter
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body["key"] = self.headers["Authorization"].removeprefix("Bearer ")
        with self.server.lock:
            self.server.requests += 1
            busy = self.server.requests % 5 == 0
        if busy:
            return self.reply(429, {"error": "busy"}, {"Retry-After": "0"})
        if self.path == "/v1/feedback":
            self.server.feedback.append(body)
            return self.reply(200, {"status": "stored"}, {})
        ticket = self.server.known[body["messages"][-1]["content"]]
        if ticket.ticket_id == "a-00079":
            return self.reply(503, {"error": "down"}, {})
        right = int(ticket.ticket_id[-1]) % 2 == 0
        answer = ticket.triage.text() if right else "no idea"
        self.server.chats.append(body)
        headers = {"X-Ratchet-Interaction": f"i-{ticket.ticket_id}", "X-Ratchet-Version": "v1"}
        return self.reply(200, {"choices": [{"message": {"role": "assistant", "content": answer}}]}, headers)

    def reply(self, status: int, value: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(len(data)), "Content-Type": "application/json"}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def counter() -> Iterator[Counter]:
    server = Counter()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def desk_of(server: Counter) -> Desk:
    return Desk(f"http://127.0.0.1:{server.server_address[1]}", "desk", "app", "agent", "admin")


def test_customers_rate_by_what_is_right_with_some_error(counter: Counter) -> None:
    seen: list[Answered] = []

    async def play(manners: Manners) -> list[Answered]:
        async with open_shop(desk_of(counter), seed=5) as shop:
            made = tickets(seed=1, stream="a", count=80, late=False)
            done = await customers(shop, made, manners, on_answer=seen.append)
            assert shop.waited > 0, "busy answers are waited out, not lost"
            assert not shop.problems
            return done

    done = asyncio.run(play(Manners(thumb_rate=0.7, thumb_error=0.1)))
    assert len(done) == len(seen) == 80
    lost = [one for one in done if one.status != 200]
    assert [one.ticket.ticket_id for one in lost] == ["a-00079"], "one failed request, reported once"
    assert sum(one.right for one in done) == 40
    rated = [one for one in done if one.thumb is not None]
    assert 40 <= len(rated) <= 70
    assert 0 < sum(one.thumb != one.right for one in rated) < 0.3 * len(rated)
    assert len(counter.feedback) == len(rated)
    assert all(body["user"] == body["event_id"].split(".")[1] for body in counter.feedback)
    assert {body["key"] for body in counter.feedback} == {"app"}

    counter.feedback.clear()
    again = asyncio.run(play(Manners(thumb_rate=0.7, thumb_error=0.1)))
    assert {o.ticket.ticket_id: o.thumb for o in again} == {o.ticket.ticket_id: o.thumb for o in done}


def test_customers_stop_when_it_is_enough(counter: Counter) -> None:
    seen: list[Answered] = []

    async def play() -> list[Answered]:
        async with open_shop(desk_of(counter), seed=5, concurrency=2) as shop:
            made = tickets(seed=1, stream="a", count=80, late=False)
            return await customers(
                shop, made, Manners(), on_answer=seen.append, crowd=2, enough=lambda: len(seen) >= 10
            )

    assert 10 <= len(asyncio.run(play())) <= 12


def test_agents_label_with_the_trusted_key_and_some_error(counter: Counter) -> None:
    async def play() -> list[Answered]:
        async with open_shop(desk_of(counter), seed=5) as shop:
            made = tickets(seed=1, stream="a", count=80, late=False)
            done = await customers(shop, made, Manners(thumb_rate=0.0), on_answer=lambda one: None)
            await agents(shop, done, Manners(label_error=0.1), names=("ann", "bob"), on_done=lambda: None)
            return done

    done = {one.interaction_id: one for one in asyncio.run(play())}
    assert len(counter.feedback) == 79
    assert {body["key"] for body in counter.feedback} == {"agent"}
    assert {body["user"] for body in counter.feedback} == {"ann", "bob"}
    kinds = [body["kind"] for body in counter.feedback]
    assert min(kinds.count(kind) for kind in ("edit", "preference", "reference")) >= 2
    wrong = 0
    for body in counter.feedback:
        one = done[body["interaction_id"]]
        label = body["chosen"] if body["kind"] == "preference" else body["text"]
        assert parse_triage(label) is not None
        wrong += parse_triage(label) != one.ticket.triage
        if body["kind"] == "preference":
            assert body["rejected"] == one.answer != label
    assert 1 <= wrong <= 20


def test_poisoners_come_with_few_accounts_and_one_message(counter: Counter) -> None:
    made = tickets(seed=1, stream="p", count=30, late=False)

    async def play() -> list[Answered]:
        async with open_shop(desk_of(counter), seed=5) as shop:
            done = await poisoners(shop, made, names=("x", "y"), on_answer=lambda one: None)
            assert not shop.problems and {one.status for one in done} == {200}
            return done

    asyncio.run(play())
    assert {body["user"] for body in counter.chats} == {"x", "y"}
    edits = {body["text"] for body in counter.feedback if body["kind"] == "edit"}
    assert edits == {SABOTAGE.text()}
    right = {f"i-{t.ticket_id}" for t in made if int(t.ticket_id[-1]) % 2 == 0}
    for body in counter.feedback:
        if body["kind"] == "thumb":
            assert body["up"] == (body["interaction_id"] not in right)


def test_an_examination_asks_one_version_by_name_and_leaves_no_feedback(counter: Counter) -> None:
    made = tickets(seed=1, stream="a", count=20, late=False)

    async def play() -> list[Answered]:
        async with open_shop(desk_of(counter), seed=5) as shop:
            return await examine(shop, made, "v7", on_answer=lambda one: None)

    assert len(asyncio.run(play())) == 20
    assert {(body["model"], body["key"]) for body in counter.chats} == {("v7", "admin")}
    assert not counter.feedback
