"""The gateway with the official client, over a real engine: answers, capture, feedback, keys, limits."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import current
from feedback.events import Thumb
from feedback.store.store import Store
from feedback.store.user_salt import pseudonym
from tests.deploy.serving_stack import BASE, SALT, Stack, free_port, process, wait_until_routed
from tests.waiting import wait

ASK: dict[str, Any] = {
    "model": "desk",
    "messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "refund"}],
    "temperature": 0,
    "max_tokens": 10,
}


def _openai(serving: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{serving.url}/v1", api_key=serving.key("chat", "feedback"), max_retries=0)


def test_openai_client_chats_streams_and_sends_feedback(serving: Stack) -> None:
    client = _openai(serving)
    whole = client.chat.completions.create(**ASK, user="ada")
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 10
    assert whole.choices[0].finish_reason == "length"
    facts = whole.model_extra["ratchet"]
    assert facts == {"interaction_id": whole.id, "version": whole.model}

    pieces = list(
        client.chat.completions.create(**ASK, user="ada", stream=True, stream_options={"include_usage": True})
    )
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == whole.choices[0].message.content
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "length"
    assert pieces[-1].usage == whole.usage
    assert {p.id for p in pieces} == {pieces[0].id} != {whole.id}
    assert {p.model for p in pieces} == {whole.model}

    store = Store(serving.database)
    for interaction_id in (whole.id, pieces[0].id):
        kept = store.interaction("default", interaction_id)
        assert kept is not None
        assert (kept.answer, kept.version) == (whole.choices[0].message.content, whole.model)
        assert kept.user == pseudonym("ada", SALT)
        assert [message.content for message in kept.messages] == ["You are a helpful assistant.", "refund"]
        assert kept.routing is not None
        assert (kept.routing.arm, kept.routing.probability) == ("champion", 1.0)
        assert kept.sampling == {"temperature": 0, "max_tokens": 10}

    said = {"interaction_id": whole.id, "kind": "thumb", "up": False, "event_id": "e-1", "comment": "wrong"}
    with serving.client("feedback") as http:
        answers = [http.post("/v1/feedback", json=said) for _ in range(2)]
    assert [(a.status_code, a.json()["status"]) for a in answers] == [(200, "stored"), (200, "duplicate")]
    [event] = store.feedback_for("default", whole.id)
    assert event.value == Thumb(up=False)
    assert event.actor == pseudonym("ada", SALT)
    assert not event.trusted


def test_answer_names_its_version_in_header_and_body(serving: Stack) -> None:
    with serving.client("chat") as http:
        answer = http.post("/v1/chat/completions", json=ASK)
        assert answer.headers["x-ratchet-version"] == answer.json()["ratchet"]["version"] == answer.json()["model"]
        assert answer.headers["x-ratchet-interaction"] == answer.json()["id"]


def test_every_kind_of_feedback_is_taken_and_wrong_ones_are_explained(serving: Stack) -> None:
    with serving.client("chat", "feedback", "trusted") as http:
        interaction = http.post("/v1/chat/completions", json=ASK).json()["id"]
        for said in (
            {"kind": "rating", "score": 4},
            {"kind": "edit", "text": "better"},
            {"kind": "preference", "chosen": "a", "rejected": "b"},
            {"kind": "reference", "text": "right", "grader": "exact"},
        ):
            answer = http.post("/v1/feedback", json={"interaction_id": interaction, "user": "bob", **said})
            assert (answer.status_code, answer.json()["status"]) == (200, "stored"), answer.text
        assert all(event.trusted for event in Store(serving.database).feedback_for("default", interaction))
        for wrong, about in (
            ({"interaction_id": interaction, "kind": "rating", "score": 9}, "score 9"),
            ({"interaction_id": interaction, "kind": "thumb"}, "up"),
            ({"interaction_id": interaction, "kind": "smile"}, "thumb, rating"),
            ({"kind": "thumb", "up": True}, "interaction_id"),
            ({"interaction_id": interaction, "kind": "thumb", "up": True, "colour": 1}, "colour"),
            ([1], "object"),
        ):
            answer = http.post("/v1/feedback", json=wrong)
            assert answer.status_code == 400
            assert about in answer.json()["error"]["message"]


def test_unknown_interaction_is_parked(serving: Stack) -> None:
    with serving.client("feedback") as http:
        answer = http.post("/v1/feedback", json={"interaction_id": "chatcmpl-none", "kind": "thumb", "up": True})
    assert (answer.status_code, answer.json()["status"]) == (202, "parked")


def test_keys_and_scopes(serving: Stack) -> None:
    with httpx.Client(base_url=serving.url) as nobody:
        for headers in ({}, {"Authorization": "Bearer rk-wrong"}, {"Authorization": "Basic x"}):
            answer = nobody.post("/v1/chat/completions", json=ASK, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    with serving.client("feedback") as http:
        assert http.post("/v1/chat/completions", json=ASK).status_code == 403
        assert http.get("/v1/models").status_code == 403
    with serving.client("chat") as http:
        assert http.post("/v1/feedback", json={}).status_code == 403
        pinned = http.post("/v1/chat/completions", json={**ASK, "model": BASE})
        assert (pinned.status_code, pinned.json()["error"]["code"]) == (403, "missing_scope")
        unknown = http.post("/v1/chat/completions", json={**ASK, "model": "../etc"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    with serving.client("admin") as http:
        for version in (BASE, serving.versions[4]):  # no tenant's ledger names the last one
            answer = http.post("/v1/chat/completions", json={**ASK, "model": version})
            assert answer.json()["model"] == version
            kept = Store(serving.database).interaction("default", answer.json()["id"])
            assert kept is not None
            assert kept.routing is not None
            assert (kept.routing.arm, kept.routing.release_seq) == ("pinned", 0)


def test_tenant_cannot_reach_anothers_interactions(serving: Stack) -> None:
    with serving.client("chat", "feedback") as mine, serving.client("chat", "feedback", tenant="other") as theirs:
        interaction = mine.post("/v1/chat/completions", json=ASK).json()["id"]
        answer = theirs.post("/v1/feedback", json={"interaction_id": interaction, "kind": "thumb", "up": False})
        assert answer.status_code == 202, "to the other tenant it is simply unknown"
        assert Store(serving.database).feedback_for("default", interaction) == []
        assert Store(serving.database).interaction("other", interaction) is None
        assert (
            theirs.post("/v1/chat/completions", json=ASK).json()["model"]
            == current(serving.database, "default").champion
        )


def test_bad_requests_get_one_clear_error_each(serving: Stack) -> None:
    with serving.client("chat") as http:
        huge = http.post(
            "/v1/chat/completions", json={**ASK, "messages": [{"role": "user", "content": "x" * 10_000_000}]}
        )
        assert (huge.status_code, huge.json()["error"]["code"]) == (413, "body_too_large")

        def chunks() -> Any:
            for _ in range(40):
                yield b"x" * 65_536

        unannounced = http.post("/v1/chat/completions", content=chunks())
        assert unannounced.status_code == 413
        long = {**ASK, "messages": [{"role": "user", "content": "refund " * 5000}]}
        for stream in (False, True):
            answer = http.post("/v1/chat/completions", json={**long, "stream": stream})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        for wrong, about in (
            ({**ASK, "messages": []}, "messages"),
            ({**ASK, "temperature": 9}, "temperature"),
            ({**ASK, "n": 2}, "n is not supported"),
            ({**ASK, "user": "x" * 201}, "at most 200"),
            ({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ):
            answer = http.post("/v1/chat/completions", json=wrong)
            assert answer.status_code == 400, answer.text
            assert about in answer.json()["error"]["message"]
        broken = http.post("/v1/chat/completions", content=b"{")
        assert "not JSON" in broken.json()["error"]["message"]
        assert http.post("/v1/chat/completions", json=ASK).is_success, "and it goes on serving"


@pytest.mark.parametrize("name", ["v" * 256, "\u00fc" * 128, "v\x00", "../v", "v/..", ".", "..", ""])
def test_a_model_name_that_no_file_can_have_is_unknown(serving: Stack, name: str) -> None:
    with serving.client("chat", "admin") as http:
        asked = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        answer = http.post("/v1/chat/completions", json=asked)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_client_that_leaves_a_stream_leaves_a_cancelled_interaction(serving: Stack) -> None:
    with serving.client("chat") as http:
        with http.stream("POST", "/v1/chat/completions", json={**ASK, "max_tokens": 1500, "stream": True}) as answer:
            interaction = answer.headers["x-ratchet-interaction"]
            for line in answer.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["choices"][0]["delta"].get("content"):
                    break
        kept = wait("its capture", lambda: Store(serving.database).interaction("default", interaction))
        assert kept.finish_reason == "cancelled"
        assert kept.completion_tokens < 1500


def test_canary_is_dealt_by_user_and_needs_its_lease(serving: Stack) -> None:
    tenant, version = "canary-tenant", serving.versions[0]
    serving.say("baseline", BASE, tenant=tenant)
    serving.say("gated", version, tenant=tenant)
    opened = serving.say("canary", version, tenant=tenant, share=0.5, previous=BASE)
    wait_until_routed(serving, opened)
    time.sleep(0.5)
    assert not [a for a in _alerts(serving) if a.tenant == tenant], "a new watch waits for its controller in peace"
    assert renew(serving.database, canary_lease(tenant), "test", 600)
    time.sleep(0.5)
    with serving.client("chat", tenant=tenant) as http:

        def ask(user: str) -> str:
            answer = http.post("/v1/chat/completions", json={**ASK, "max_tokens": 1}, headers={"X-Ratchet-User": user})
            return str(answer.json()["model"])

        users = [f"user-{number}" for number in range(24)]
        dealt = {user: ask(user) for user in users}
        assert set(dealt.values()) == {BASE, version}
        assert {user: ask(user) for user in users} == dealt
        assert set(Store(serving.database).assigned_units(tenant, opened.seq)) == {"canary", "champion"}

        stepped = serving.say("canary", version, tenant=tenant, share=0.99, previous=BASE)
        wait_until_routed(serving, stepped)
        assert {user: ask(user) for user in users} == dealt, "a higher share is for new users only"
        fresh = [ask(f"new-{number}") for number in range(8)]
        assert fresh.count(version) >= 6

        assert renew(serving.database, canary_lease(tenant), "test", 0)
        wait("everyone at the champion, without the lease", lambda: {ask(user) for user in users} == {BASE})
        [alerted] = [a for a in _alerts(serving) if a.tenant == tenant]
        assert alerted.kind == "canary_unwatched"


def _alerts(serving: Stack) -> list[Any]:
    from infra.alerts.outbox import list_alerts

    return list(list_alerts(serving.database))


def test_a_key_that_asks_too_often_is_told_when_to_come_again(serving: Stack, tmp_path: Path) -> None:
    slow = serving.gateway_job.serving.model_copy(update={"requests_per_minute": 120, "gateways": 2})
    job = serving.gateway_job.model_copy(update={"port": free_port(), "serving": slow, "spool_dir": tmp_path / "spool"})
    url = f"http://127.0.0.1:{job.port}"
    first, second = (
        {"Authorization": f"Bearer {serving.key(*scopes)}"} for scopes in (("chat",), ("chat", "feedback"))
    )
    with process("deploy.gateway", job, tmp_path / "job.json", f"{url}/readyz"):
        answers = [httpx.get(f"{url}/v1/models", headers=first) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["error"]["type"] == "rate_limit_error" and int(refused.headers["Retry-After"]) >= 1
        assert httpx.get(f"{url}/v1/models", headers=second).status_code == 200  # the limit is each key's own


def test_health_models_and_metrics(serving: Stack) -> None:
    assert httpx.get(f"{serving.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{serving.url}/readyz").json()["status"] == "ready"
    assert "ratchet_requests_total" in httpx.get(f"{serving.url}/metrics").text
    assert [model.id for model in _openai(serving).models.list()] == ["desk", "champion"]
    missing = httpx.get(f"{serving.url}/v1/nothing")
    assert (missing.status_code, "error" in missing.json()) == (404, True)


def test_gateway_process_has_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, deploy.gateway.app; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
