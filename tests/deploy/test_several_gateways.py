"""Two gateways over one Postgres: the same routing, one winner in every race, and Postgres away for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import SQLAlchemyError

from deploy.canary_policy import CanaryPolicy
from deploy.keys import create_key
from deploy.ledger import Entry, append, append_in, current, history
from deploy.release import promote, step
from deploy.routing import assign, table_of
from feedback.store import Store
from infra.database import begin_write, connect, create_tables
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
    from deploy.lease import canary_lease, renew

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
    table = table_of(current(pair.database, "default"), base=BASE, lease_valid=True)
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
                    step(own, before[number], 0.5, reason="race", evidence={})
                else:
                    promote(own, before[number], policy=policy, reason="race", evidence={}, actor="other")
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
