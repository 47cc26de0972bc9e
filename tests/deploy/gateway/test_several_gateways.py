"""Two gateways over one Postgres: the same routing, one winner in every race, and Postgres away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from deploy.api_keys import create_key
from deploy.canary.policy import CanaryPolicy
from deploy.gateway.routing.assign import assign, routing_table
from deploy.ledger.ledger import Entry, append, append_in, current, history
from deploy.release.lifecycle import promote, step
from feedback.store.store import Store
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables
from infra.errors import Conflict
from tests.deploy.serving_stack import BASE, Stack, free_port, process, routed
from tests.postgres import Postgres
from tests.waiting import wait

ASK = {"model": "desk", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 2}


class Pair:
    """Two gateways of one engine over one database."""

    def __init__(self, serving: Stack, server: Postgres, folder: Path) -> None:
        self.server, self.versions = server, serving.versions
        self.database = connect(server.new_database())
        create_tables(self.database)
        self.say("baseline", BASE)
        self.jobs = [
            serving.gateway_job.model_copy(
                update={
                    "database_url": self.database.url.render_as_string(hide_password=False),
                    "port": free_port(),
                    "serving": serving.gateway_job.serving.model_copy(update={"database_seconds": 1.0}),
                    "spool_dir": folder / f"spool-{number}",
                }
            )
            for number in (1, 2)
        ]
        self.key, _ = create_key(self.database, tenant="default", name="t", scopes=["chat", "feedback"])

    def say(self, action: str, version: str, **fields: object) -> Entry:
        values = {"tenant": "default", "action": action, "version": version, "actor": "test", "reason": "t", **fields}
        return append(self.database, Entry.model_validate(values), current(self.database, "default").seq)

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.jobs[number].port}"

    def client(self, number: int) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url(number), headers=headers, timeout=60)


@pytest.fixture(scope="module")
def pair(serving: Stack, postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    made = Pair(serving, postgres_server, folder)
    one = process("deploy.gateway", made.jobs[0], folder / "one.json", f"{made.url(0)}/readyz")
    two = process("deploy.gateway", made.jobs[1], folder / "two.json", f"{made.url(1)}/readyz")
    with one, two:
        yield made


def test_two_gateways_deal_a_user_alike_and_two_promoters_race_to_one_winner(pair: Pair) -> None:
    from deploy.ledger.lease import canary_lease, renew

    version = pair.versions[0]
    pair.say("gated", version)
    assert renew(pair.database, canary_lease("default"), "test", 600)
    opened = pair.say("canary", version, share=0.5, previous=BASE)
    for number in (0, 1):
        routed(pair.url(number), opened)
    dealt: list[dict[str, str]] = []
    for number in (0, 1):
        with pair.client(number) as http:
            dealt.append(
                {
                    user: http.post("/v1/chat/completions", json=ASK | {"user": user}).json()["model"]
                    for user in (f"u{n}" for n in range(12))
                }
            )
    assert dealt[0] == dealt[1] and set(dealt[0].values()) == {BASE, version}
    table = routing_table(current(pair.database, "default"), base=BASE, lease_valid=True)
    assert assign(table, "x").release_seq == opened.seq
    pair.say("withdrawn", version, previous=BASE)


def test_two_promoters_race_two_hundred_times(postgres_url: str) -> None:
    """One raises the share, the other promotes; whoever comes second has decided on what no longer stands."""
    races, policy = 200, CanaryPolicy(steps=(0.01, 0.5), holdback=0.0)
    database = connect(postgres_url)
    create_tables(database)
    with begin_write(database) as connection:
        for number in range(races):
            seq = 0
            for action, version, more in (
                ("baseline", BASE, {}),
                ("gated", "v1", {}),
                ("canary", "v1", {"share": 0.01, "previous": BASE}),
            ):
                values = {"tenant": f"race-{number}", "action": action, "version": version, "actor": "a", "reason": "r"}
                seq = append_in(connection, Entry.model_validate({**values, **more}), seq).seq
    before = [current(database, f"race-{number}") for number in range(races)]
    barrier = threading.Barrier(2)
    winners: list[list[str]] = [[] for _ in range(races)]

    def race(name: str) -> None:
        own = connect(postgres_url)
        for number in range(races):
            barrier.wait(60)
            try:
                if name == "step":
                    step(own, before[number], 0.5, reason="race")
                else:
                    promote(own, before[number], policy=policy, reason="race", actor="other")
                winners[number].append(name)
            except Conflict:
                pass
        own.dispose()

    threads = [threading.Thread(target=race, args=(name,)) for name in ("step", "promote")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert [won for won in winners if len(won) != 1] == []
    for number, [won] in enumerate(winners):
        lines = history(database, f"race-{number}")
        assert [line.action for line in lines[3:]] == ["canary" if won == "step" else "champion"]
        assert [line.tenant_seq for line in lines] == [1, 2, 3, 4], "no gap, no fork"
    database.dispose()


def test_chat_goes_on_without_postgres_and_nothing_is_lost(pair: Pair) -> None:
    with pair.client(0) as http:
        before = http.post("/v1/chat/completions", json=ASK | {"user": "ada"}).json()["id"]
        thumb = {"interaction_id": before, "kind": "thumb", "up": True, "event_id": "held"}
        pair.server.stop()
        try:
            told = []
            for _ in range(3):
                answer = http.post("/v1/chat/completions", json=ASK | {"user": "ada"})
                assert answer.status_code == 200, answer.text
                told.append(answer.json()["id"])
            refused = http.post("/v1/feedback", json=thumb)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            stranger = httpx.post(
                f"{pair.url(0)}/v1/chat/completions", json=ASK, headers={"Authorization": "Bearer rk-never-seen"}
            )
            assert stranger.status_code == 503, "an unknown key cannot be believed"
            assert list(pair.jobs[0].spool.glob("*.jsonl"))
        finally:
            pair.server.start()
        store = Store(pair.database)

        def kept() -> bool:
            with suppress(SQLAlchemyError):  # our own pool finds out that its connections are gone
                return len(store.interactions_of({("default", identity) for identity in told})) == len(told)
            return False

        wait("what was spooled", kept)
        assert not list(pair.jobs[0].spool.glob("*.jsonl"))
        assert http.post("/v1/feedback", json=thumb).json()["status"] == "stored"
        assert [event.event_id for event in store.feedback_for("default", before)] == ["held"]


def test_chat_goes_on_while_postgres_is_frozen_or_held_up(pair: Pair) -> None:
    with pair.client(0) as http:
        first = http.post("/v1/chat/completions", json=ASK | {"user": "eve"}).json()["id"]
        thumb = {"interaction_id": first, "kind": "thumb", "up": True, "event_id": "while-frozen"}
        told = []
        with pair.server.frozen():
            for _ in range(4):
                began = time.monotonic()
                answer = http.post("/v1/chat/completions", json=ASK | {"user": "eve"})
                assert answer.status_code == 200, answer.text
                assert time.monotonic() - began < 15, "as the slowest of machines, not as long as it is frozen"
                told.append(answer.json()["id"])
            refused = http.post("/v1/feedback", json=thumb)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            ready = httpx.get(f"{pair.url(0)}/readyz", timeout=15)
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert "database" in " ".join(ready.json()["degraded"])
            assert httpx.get(f"{pair.url(0)}/healthz", timeout=15).status_code == 200
        wait("the gateway to be whole again", lambda: _status(pair, 0) == "ready")
        with pair.database.connect() as held, held.begin():
            held.execute(text("SELECT pg_advisory_xact_lock(7203641)"))
            answer = http.post("/v1/chat/completions", json=ASK | {"user": "eve"})
            assert answer.status_code == 200, answer.text
            told.append(answer.json()["id"])
            assert http.post("/v1/feedback", json=thumb).status_code == 503
        wait("the gateway to be whole again", lambda: _status(pair, 0) == "ready")
        wait("what was spooled", lambda: not list(pair.jobs[0].spool.glob("*.jsonl")))
        store = Store(pair.database)
        assert len(store.interactions_of({("default", identity) for identity in told})) == len(told)
        assert http.post("/v1/feedback", json=thumb).json()["status"] in ("stored", "duplicate")
        assert [event.event_id for event in store.feedback_for("default", first)] == ["while-frozen"]


def test_a_gateway_starts_without_postgres_from_what_it_last_knew(pair: Pair, tmp_path: Path) -> None:
    champion, port = pair.versions[1], free_port()
    previous = current(pair.database, "default").champion
    pair.say("gated", champion)
    pair.say("canary", champion, share=0.5, previous=previous)
    pair.say("champion", champion, previous=previous)
    stranger = {"Authorization": "Bearer rk-never-made"}
    job = pair.jobs[0].model_copy(update={"port": port, "spool_dir": tmp_path / "spool"})
    known, url = job.spool / "last-known.json", f"http://127.0.0.1:{port}"

    def started(health: str) -> AbstractContextManager[object]:
        return process("deploy.gateway", job, tmp_path / "three.json", f"{url}/{health}")

    with started("readyz"):
        wait("the keys to be kept", lambda: known.exists() and '"keys":{"' in known.read_text())
        wait("the champion to be kept", lambda: champion in known.read_text())
    assert known.stat().st_mode & 0o777 == 0o600
    assert pair.key not in known.read_text()
    pair.server.stop()
    try:
        with started("readyz"):
            assert httpx.get(f"{url}/readyz").json()["status"] == "degraded"
            ours = {"Authorization": f"Bearer {pair.key}"}
            answer = httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=ours, timeout=60)
            assert (answer.status_code, answer.json()["model"]) == (200, champion)
            refused = httpx.post(f"{url}/v1/chat/completions", json=ASK, headers=stranger, timeout=60)
            assert refused.status_code == 503, "a key that nobody ever saw is not believed"
            pair.server.start()
            wait("the database to be open", lambda: httpx.get(f"{url}/readyz").json()["status"] == "ready")
            told = {("default", answer.json()["id"])}

            def kept() -> bool:
                with suppress(SQLAlchemyError):
                    return bool(Store(pair.database).interactions_of(told))
                return False

            wait("what was answered to land", kept)
    finally:
        if pair.server._server is None:
            pair.server.start()


def test_a_gateway_whose_tables_are_others_is_not_ready_and_says_what_to_run(pair: Pair) -> None:
    with pair.client(1) as http:
        _alter(pair, "ALTER TABLE interactions RENAME COLUMN probability TO gone")
        try:
            ready = httpx.get(f"{pair.url(1)}/readyz", timeout=15)
            assert ready.status_code == 503 and "ratchet migrate" in ready.text
            answer = http.post("/v1/chat/completions", json=ASK)
            assert answer.status_code == 503 and "ratchet migrate" in answer.text
            assert not list(pair.jobs[1].spool.glob("*.jsonl")), "nothing that cannot land is acknowledged"
        finally:
            _alter(pair, "ALTER TABLE interactions RENAME COLUMN gone TO probability")
        wait("the gateway to be ready again", lambda: _status(pair, 1) == "ready")
        assert http.post("/v1/chat/completions", json=ASK).status_code == 200


def _alter(pair: Pair, statement: str) -> None:
    with pair.database.begin() as connection:
        connection.execute(text(statement))


def _status(pair: Pair, number: int) -> str:
    return str(httpx.get(f"{pair.url(number)}/readyz", timeout=15).json()["status"])
