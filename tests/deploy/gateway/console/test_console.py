"""The console's files and API over a real gateway: policy, keys, tenants, evidence, rollback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from deploy.canary.policy import CanaryPolicy
from deploy.controller.canary_watch import assess_watch, policy_in_force
from deploy.engines.client import AsyncEngineClient
from deploy.engines.dialect import EMBEDDED
from deploy.gateway.backends.adapter_loading import AdapterLoader
from deploy.gateway.backends.replicas import Replica, ReplicaPool
from deploy.gateway.console.canary import curve, thinned
from deploy.gateway.console.mount import STATIC, prove_in
from deploy.ledger.ledger import current, history
from evaluation.proportions import wilson_interval
from infra.database.connect import now
from infra.errors import Unavailable
from tests.deploy.serving_stack import BASE, Stack, wait_until_routed

TENANT = "console"


@pytest.fixture
def admin(serving: Stack) -> Iterator[httpx.Client]:
    if current(serving.database, TENANT).champion is None:
        serving.say("baseline", BASE, tenant=TENANT)
    with serving.client("admin", "trusted", tenant=TENANT) as client:
        yield client


def test_files_come_with_a_strict_policy_and_nothing_else_is_served(serving: Stack) -> None:
    page = httpx.get(f"{serving.url}/console")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for file in STATIC.iterdir():
        if file.suffix == ".md":
            continue
        found = httpx.get(f"{serving.url}/console/static/{file.name}")
        assert found.content == file.read_bytes()
        assert found.headers["x-content-type-options"] == "nosniff"
    for name in ("..%2Fmount.py", "mount.py", "%2e%2e/mount.py", ".hidden", "README.md"):
        assert httpx.get(f"{serving.url}/console/static/{name}").status_code == 404


def test_no_file_of_the_page_names_another_server_or_writes_markup() -> None:
    for file in STATIC.glob("*.*"):
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text, file.name
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text, file.name


@pytest.mark.parametrize(
    ("path", "scopes", "status"),
    [
        ("live", ("chat",), 200),
        ("ledger", ("chat",), 200),
        ("quality", ("chat",), 200),
        ("nights", ("chat",), 200),
        ("canary", ("chat",), 200),
        ("live", ("feedback",), 403),
        ("quarantine", ("chat",), 403),
        ("lineage?q=x", ("chat", "feedback"), 403),
        ("quarantine", ("chat", "trusted"), 200),
        ("nights/none", ("chat",), 404),
        ("nights/..", ("chat",), 404),
    ],
)
def test_looking_needs_the_scope_that_is_stated(
    path: str, scopes: tuple[str, ...], status: int, serving: Stack
) -> None:
    with serving.client(*scopes, tenant=TENANT) as client:
        assert client.get(f"/console/api/{path}").status_code == status
    assert httpx.get(f"{serving.url}/console/api/{path}").status_code in (401, 404)


@pytest.mark.parametrize("path", ["rollback", "resume", "quarantine/abc/accept", "quarantine/abc/drop"])
def test_changing_something_needs_an_admin_key(path: str, serving: Stack) -> None:
    with serving.client("chat", "feedback", "trusted", tenant=TENANT) as client:
        before = len(history(serving.database, TENANT))
        answer = client.post(f"/console/api/{path}", json={"reason": "because", "expected_seq": 0})
        assert answer.status_code == 403
        assert len(history(serving.database, TENANT)) == before


def test_rollback_takes_back_what_the_person_saw_and_nothing_newer(serving: Stack, admin: httpx.Client) -> None:
    version = serving.versions[3]
    wait_until_routed(serving, serving.make_champion(version, tenant=TENANT))
    seen = admin.get("/console/api/ledger").json()
    assert seen["champion"] == version
    assert seen["can_roll_back"] is True
    late = admin.post("/console/api/rollback", json={"reason": "too late", "expected_seq": seen["seq"] - 1})
    assert late.status_code == 409
    assert "look again" in late.json()["error"]["message"]
    short = admin.post("/console/api/rollback", json={"reason": "x", "expected_seq": seen["seq"]})
    assert short.status_code == 400
    line = admin.post("/console/api/rollback", json={"reason": "wrong tone", "expected_seq": seen["seq"]})
    assert line.status_code == 200, line.text
    assert line.json()["previous"] == BASE
    assert history(serving.database, TENANT)[-1].actor.startswith("console:")
    live = admin.get("/console/api/live").json()
    assert live["champion"] == BASE
    assert version in live["barred"]
    assert live["paused"] is True
    assert admin.post("/console/api/resume", json={"reason": "found and mended"}).status_code == 200
    assert admin.get("/console/api/live").json()["paused"] is False


def test_an_engine_that_says_nothing_is_a_clear_refusal_not_a_crash(serving: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        loading = AdapterLoader(
            url=url,
            key="k",
            dialect=EMBEDDED,
            versions_dir=serving.versions_dir,
            base_version=BASE,
            base_name=BASE,
            tolerance=None,
        )

        async def ask() -> None:
            engines = ReplicaPool([Replica(AsyncEngineClient(url, "k"), loading)])
            running = asyncio.get_running_loop()
            try:
                await asyncio.to_thread(prove_in, engines, serving.versions[0], running, seconds=0.3)
            finally:
                silent.close()  # ends the probe that still waits for it

        with pytest.raises(Unavailable, match=r"within 0\.3 s"):
            asyncio.run(ask())


def test_the_canarys_curve_ends_at_the_controllers_own_evidence(serving: Stack, admin: httpx.Client) -> None:
    tenant = "curve"
    quick = CanaryPolicy(steps=(0.5,), window_seconds=3600, minimum_seconds=0, deadline_seconds=100_000)
    serving.say("baseline", BASE, tenant=tenant)
    serving.say("gated", serving.versions[0], tenant=tenant)
    evidence = {"policy": quick.model_dump(mode="json")}
    line = serving.say("canary", serving.versions[0], tenant=tenant, share=0.5, previous=BASE, evidence=evidence)
    _rated(serving, tenant, line.seq)
    later = now() + timedelta(hours=2)
    shown = curve(serving.database, tenant, CanaryPolicy(), at=later)
    assert shown is not None
    standing = current(serving.database, tenant)
    assert standing.watch is not None
    judged = assess_watch(
        serving.database, standing, standing.watch, policy_in_force(serving.database, standing, CanaryPolicy()), later
    )
    assert judged.rated == shown.after[-1] == 30
    assert shown.back[-1] == pytest.approx(judged.evidence_back, abs=1e-4)
    assert shown.forward[-1] == pytest.approx(judged.evidence_forward, abs=1e-4)
    assert shown.needed_back == judged.needed_back
    assert list(shown.back) == sorted(shown.back)
    quality = serving.client("chat", tenant=tenant).get("/console/api/quality").json()
    thumbs = {one["version"]: one["thumbs"] for one in quality["versions"]}
    assert thumbs[BASE]["rated"] + thumbs[serving.versions[0]]["rated"] == 30
    assert thumbs[serving.versions[0]]["mean"] == 0


def _rated(serving: Stack, tenant: str, release: int) -> None:
    """30 users: half of them on the canary, who all complain."""
    from feedback.events import Feedback, Interaction, Message, Routing, Thumb
    from feedback.store.store import Store

    store, at = Store(serving.database), now()
    for number in range(30):
        treated = number % 2 == 0
        name = f"{tenant}-{number}"
        store.record_interaction(
            Interaction(
                interaction_id=name,
                tenant=tenant,
                user=name,
                version=serving.versions[0] if treated else BASE,
                messages=(Message(role="user", content="hello"),),
                answer="yes",
                created_at=at,
                latency_ms=1,
                routing=Routing(
                    release_seq=release, arm="canary" if treated else "champion", unit=name, probability=0.5
                ),
            )
        )
        thumb = Thumb(up=not treated)
        store.record_feedback(
            Feedback(
                event_id=f"{name}-thumb", tenant=tenant, interaction_id=name, actor=name, trusted=False,
                kind="thumb", value=thumb, created_at=at, source="gateway",
            )
        )  # fmt: skip


def test_nights_show_their_progress_and_another_tenants_stay_hidden(serving: Stack, admin: httpx.Client) -> None:
    folder = serving.folder / "nights" / "n1"
    folder.mkdir(parents=True)
    record = {
        "night_id": "n1", "tenant": TENANT, "state": "running", "attempts": 1, "started_at": "2026-01-01T03:00:00Z",
        "finished_at": None, "outcome": "", "steps": {"snapshot": "s-1"}, "request": {"note": ""}, "flow_runs": [],
    }  # fmt: skip
    (folder / "night.json").write_text(json.dumps(record))
    work = serving.folder / "stages" / ".abc.work"
    work.mkdir(parents=True)
    (work / "progress.jsonl").write_text('{"step": 3, "total": 9, "loss": 1.5}\n{"step": 4, "to')
    found = admin.get("/console/api/nights").json()
    assert found["tonight"]["progress"] == [{"what": "training abc", "done": 3, "total": 9, "loss": 1.5}]
    assert admin.get("/console/api/nights/n1").json()["snapshot"] == "s-1"
    with serving.client("admin", tenant="another") as other:
        assert other.get("/console/api/nights").json()["nights"] == []
        assert other.get("/console/api/nights/n1").status_code == 404


def test_lineage_names_an_answer_and_its_feedback_to_its_own_tenant_only(serving: Stack, admin: httpx.Client) -> None:
    _rated(serving, TENANT, 1)
    cards = admin.get("/console/api/lineage", params={"q": f"{TENANT}-1"}).json()["cards"]
    assert [card["kind"] for card in cards] == ["answer"]
    assert cards[0]["facts"]["answered"] == "yes"
    assert f"{TENANT}-1-thumb" in cards[0]["links"]
    event = admin.get("/console/api/lineage", params={"q": f"{TENANT}-1-thumb"}).json()["cards"][0]
    assert event["facts"]["said"] == {"up": True}
    with serving.client("admin", tenant="another") as other:
        assert other.get("/console/api/lineage", params={"q": f"{TENANT}-1"}).status_code == 404
    assert admin.get("/console/api/lineage", params={"q": "../../etc/passwd"}).status_code == 404


def test_wilson_equals_scipys() -> None:
    from scipy.stats import binomtest

    for good, total in ((0, 1), (3, 10), (50, 50), (37, 61)):
        wanted = binomtest(good, total).proportion_ci(0.95, method="wilson")
        assert wilson_interval(good, total) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_thinning_keeps_the_last_point() -> None:
    assert thinned(0, 10) == []
    assert thinned(3, 10) == [0, 1, 2]
    assert thinned(1001, 100)[-1] == 1000
    assert len(thinned(1001, 100)) <= 102


def test_a_gateway_without_a_console_serves_none(serving: Stack, tmp_path: Path) -> None:
    from deploy.gateway.app import build_app

    app = build_app(serving.gateway_job.model_copy(update={"console": None}), engine_key="k", user_salt="s")
    assert not [route for route in app.routes if "console" in getattr(route, "path", "")]


def test_the_api_reference_says_something_of_every_route() -> None:
    from tools.reference.reference_pages import undocumented_routes

    assert undocumented_routes() == []
