"""Shadow, arena, pass-through and tenants on a running stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.canary.policy import CanaryPolicy
from deploy.config import ServingConfig
from deploy.controller.shadow_watch import watch_shadow
from deploy.experiments.arena import tally
from deploy.experiments.shadow import compare, shadow_answers_of
from deploy.ledger.evidence import Override
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import start
from deploy.release.opening import Releases
from deploy.versions.parity import prover
from feedback.events import Preference
from feedback.store.store import Store
from infra.alerts.outbox import list_alerts
from tests.deploy.serving_stack import BASE, Stack, free_port, process, publish_many, wait_until_routed
from tests.waiting import wait

PASSING = "passing"
"""Whose champion answers outside of Ratchet."""
ASK = {"model": "desk", "messages": [{"role": "user", "content": "refund"}], "temperature": 0, "max_tokens": 4}


def shadowed(serving: Stack, tenant: str) -> str:
    """A tenant of its own whose next version answers everything in shadow."""
    start(serving.database, tenant, BASE)
    version = serving.versions[0]
    with serving.engine() as engine:
        line = Releases(
            serving.database,
            tenant,
            versions_dir=serving.versions_dir,
            policy=CanaryPolicy(shadow_share=1.0, shadow_seconds=0.0, steps=(0.5,)),
            prove=prover(engine, serving.versions_dir, base_version=BASE),
        ).open(version, actor="night", override=Override(actor="ada", reason="to see"))
    assert (line.action, line.share) == ("gated", 1.0)
    wait_until_routed(serving, line)
    return version


def test_shadow_answers_are_unseen_kept_compared_and_then_the_canary_opens(serving: Stack) -> None:
    tenant = "shadowy"
    version = shadowed(serving, tenant)
    with serving.client("chat", tenant=tenant) as http:
        for stream in (False, True):
            answer = http.post("/v1/chat/completions", json=ASK | {"stream": stream})
            assert answer.headers["x-ratchet-version"] == BASE, "nobody sees the shadow"
    wait("the shadow's answers", lambda: len(shadow_answers_of(serving.database, tenant, version)) == 2)
    report = compare(
        serving.database, tenant, version, prefer=lambda pairs: [float(ours != theirs) for _, ours, theirs in pairs]
    )
    assert (report.copies, report.failed, report.judged) == (2, 0, 2)
    assert report.win_rate == 1.0, "what it said is its own"
    line = watch_shadow(serving.database, tenant, policy=CanaryPolicy())
    assert line is not None and (line.action, line.share) == ("canary", 0.5)
    assert line.evidence.model_dump()["shadow"]["copies"] == 2
    assert line.evidence.override is not None and line.evidence.override.actor == "ada"
    assert current(serving.database, tenant).shadow is None


def test_a_shadow_behind_an_outside_champion_never_opens_a_canary(serving: Stack) -> None:
    tenant = "outside"
    version = shadowed(serving, tenant)
    for _ in range(2):
        assert watch_shadow(serving.database, tenant, policy=CanaryPolicy(), shadow_only=True) is None
    assert current(serving.database, tenant).shadow == version
    told = [alert for alert in list_alerts(serving.database, limit=100) if alert.kind == "shadow_compared"]
    assert [alert.tenant for alert in told] == [tenant], "told once"


def test_arena_shows_two_blind_answers_and_keeps_the_choice(serving: Stack) -> None:
    tenant = "arena"
    version = shadowed(serving, tenant)
    firsts = set()
    with serving.client("chat", "feedback", tenant=tenant) as http, serving.client("feedback", tenant="x") as other:
        for number in range(12):
            answer = http.post("/v1/arena", json=ASK)
            assert answer.status_code == 200, answer.text
            assert BASE not in answer.text and version not in answer.text and "x-ratchet-version" not in answer.headers
            pair = answer.json()
            ids = [each["interaction_id"] for each in pair["answers"]]
            kept = [Store(serving.database).interaction(tenant, each) for each in ids]
            assert {each.version for each in kept if each} == {BASE, version}
            assert {each.routing.arm for each in kept if each and each.routing} == {"arena"}
            firsts.add(kept[0].version if kept[0] else None)
            choice = {"arena_id": pair["arena_id"], "winner": ("first", "second", "tie")[number % 3], "user": "bob"}
            assert other.post("/v1/arena/choice", json=choice).status_code == 404, "not another tenant's"
            assert http.post("/v1/arena/choice", json=choice).json()["status"] == "stored"
            assert http.post("/v1/arena/choice", json=choice).json()["status"] == "duplicate"
            if number == 0:
                [event] = Store(serving.database).feedback_for(tenant, ids[0])
                assert event.value == Preference(chosen=kept[0].answer, rejected=kept[1].answer)  # type: ignore[union-attr]
    assert firsts == {BASE, version}, "the order is drawn by lot"
    [row] = tally(serving.database, tenant)
    assert (row.wins + row.losses, row.ties, row.open) == (8, 4, 0)


@pytest.fixture
def passing(serving: Stack, tmp_path: Path) -> Iterator[httpx.Client]:
    """A gateway of one tenant in front of another OpenAI-compatible server: here, the stack's own gateway."""
    shadowed(serving, PASSING)
    config = serving.gateway_job.serving.model_dump() | {"upstream_url": f"{serving.url}/v1", "upstream_model": "desk"}
    job = serving.gateway_job.model_copy(
        update={"port": free_port(), "serving": ServingConfig.model_validate(config), "tenant": PASSING}
    )
    url = f"http://127.0.0.1:{job.port}"
    key = {"RATCHET_UPSTREAM_KEY": serving.key("chat")}
    with process("deploy.gateway", job, tmp_path / "pass.json", f"{url}/readyz", key):
        headers = {"Authorization": f"Bearer {serving.key('chat', 'feedback', tenant=PASSING)}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            yield http


def test_pass_through_keeps_a_teams_own_champion_and_captures(serving: Stack, passing: httpx.Client) -> None:
    version = current(serving.database, PASSING).shadow
    assert version is not None
    store = Store(serving.database)
    whole = passing.post("/v1/chat/completions", json=ASK | {"user": "ada"})
    assert whole.status_code == 200, whole.text
    assert whole.headers["x-ratchet-version"] == "upstream:desk"
    body = whole.json()
    kept = store.interaction(PASSING, body["id"])
    assert kept is not None and kept.answer == body["choices"][0]["message"]["content"]
    assert kept.version == "upstream:desk" and kept.routing is not None and kept.routing.release_seq == 0
    with passing.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as stream:
        assert stream.headers["x-ratchet-version"] == "upstream:desk"
        text = "".join(stream.iter_text())
    assert text.rstrip().endswith("data: [DONE]") and body["id"] not in text
    again = store.interaction(PASSING, stream.headers["x-ratchet-interaction"])
    assert again is not None and again.answer == kept.answer
    said = passing.post("/v1/feedback", json={"interaction_id": body["id"], "kind": "thumb", "up": True})
    assert said.json()["status"] == "stored"
    wait("the shadow's answers", lambda: len(shadow_answers_of(serving.database, PASSING, version)) >= 2)
    # What could not be kept is refused before the upstream is asked, which costs money.
    before = len(store.interactions_after(0, 10_000))
    for odd in ({"tool_calls": 5}, {"tool_calls": {"id": "c"}}, {"tool_calls": ["x"]}):
        for streamed in (False, True):
            message = {"role": "assistant", "content": "x", **odd}
            wrong = passing.post("/v1/chat/completions", json=ASK | {"messages": [message], "stream": streamed})
            assert wrong.status_code == 400 and "tool_calls" in wrong.json()["error"]["message"], wrong.text
    assert len(store.interactions_after(0, 10_000)) == before, "nor did the upstream answer"
    # What our own engines would refuse goes through as it is, and the upstream's refusal comes back as it said it.
    tools = passing.post("/v1/chat/completions", json=ASK | {"tools": [{"type": "function"}]})
    assert tools.status_code == 400 and "tools is not supported" in tools.json()["error"]["message"]


def test_fifty_tenants_each_with_its_own_champion_on_one_base(serving: Stack, tiny_base: Path) -> None:
    versions = publish_many(tiny_base, serving.versions_dir.parent, 50)
    assert len(set(versions)) == 50
    lines = []
    for number, version in enumerate(versions):
        serving.say("baseline", BASE, tenant=f"tenant-{number}")
        lines.append(serving.make_champion(version, tenant=f"tenant-{number}"))
    wait_until_routed(serving, lines[-1])
    for number, version in enumerate(versions):
        with serving.client("chat", tenant=f"tenant-{number}") as http:
            answer = http.post("/v1/chat/completions", json=ASK)
            assert (answer.status_code, answer.headers["x-ratchet-version"]) == (200, version), answer.text
    # One goes back, alone.
    line = serving.say("rolled_back", versions[7], tenant="tenant-7", previous=BASE)
    wait_until_routed(serving, line)
    for number, expected in ((7, BASE), (8, versions[8])):
        with serving.client("chat", tenant=f"tenant-{number}") as http:
            assert http.post("/v1/chat/completions", json=ASK).json()["model"] == expected
    with serving.client("admin", tenant="tenant-1") as http:
        theirs = http.post("/v1/chat/completions", json=ASK | {"model": versions[2]})
        assert theirs.status_code == 404, "another tenant's adapter does not exist for this one"
        assert http.post("/v1/chat/completions", json=ASK | {"model": versions[1]}).json()["model"] == versions[1]
        listed = {model["id"] for model in http.get("/v1/models").json()["data"]}
        assert not listed & (set(versions) - {versions[1]})
    assert len(history(serving.database, "tenant-2")) == 4
