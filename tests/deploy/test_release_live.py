"""A release on the real engine and gateway: proved, dealt to users, rated by them, and taken back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deploy.canary_policy import CanaryPolicy
from deploy.controller import ControllerJob, make_prover
from deploy.lease import canary_lease, renew
from deploy.ledger import current, history
from deploy.release import Override, open_release, start
from deploy.serving import ENGINE_KEY as ENGINE_KEY_NAME
from deploy.watching import look
from infra.database import now
from infra.errors import RatchetError
from tests.deploy.serving_stack import ENGINE_KEY, Stack

TENANT = "live"
POLICY = CanaryPolicy(
    steps=(0.5,), minimum_seconds=0, deadline_seconds=3600, window_seconds=60, holdback=0.0, lease_seconds=600
)


def test_from_the_proof_to_the_rollback_on_what_users_said(serving: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_KEY_NAME, ENGINE_KEY)
    database, version = serving.database, serving.versions[0]
    base = serving.gateway_job.base_name
    job = ControllerJob(
        database_url=serving.gateway_job.database_url,
        versions_dir=serving.versions_dir,
        base_version=base,
        engine_url=serving.engine_url,
    )
    start(database, TENANT, base)
    prove = make_prover(job)
    opened = open_release(
        database,
        TENANT,
        version,
        versions_dir=serving.versions_dir,
        policy=POLICY,
        prove=prove,
        actor="ada",
        override=Override(actor="ada", reason="to see it go back"),
    )
    assert opened.evidence["parity"]["version"] == version and opened.evidence["parity"]["tokens"] > 0
    assert renew(database, canary_lease(TENANT), "test", 600)

    versions: dict[str, str] = {}
    with serving.client("chat", "feedback", tenant=TENANT) as client:
        for number in range(1000):  # the gateway follows the ledger within a quarter of a second
            body = {"model": "champion", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            answer = client.post("/v1/chat/completions", json=body | {"user": f"early {number}"}).raise_for_status()
            if answer.headers["x-ratchet-version"] == version:
                break
        for number in range(60):
            body = {
                "model": "champion",
                "messages": [{"role": "user", "content": "hello"}],
                "max_tokens": 2,
                "user": f"person {number}",
            }
            answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
            versions[answer["id"]] = answer["ratchet"]["version"]
            said = {"interaction_id": answer["id"], "kind": "thumb", "up": versions[answer["id"]] == base}
            said["user"] = f"person {number}"
            client.post("/v1/feedback", json=said).raise_for_status()
    assert set(versions.values()) == {base, version}

    judged = look(database, TENANT, policy=POLICY, holder="test", at=now() + timedelta(seconds=120))
    assert judged is not None and judged.rated == 60 and judged.decision == "back"
    counted = sum(served == version for served in versions.values())
    assert judged.version.rated == judged.version.complaints == counted and judged.control.complaints == 0
    assert current(database, TENANT).champion == base and history(database, TENANT)[-1].action == "rolled_back"


def test_without_an_engine_nothing_is_proved(serving: Stack) -> None:
    job = ControllerJob(
        database_url=serving.gateway_job.database_url, versions_dir=serving.versions_dir, base_version="base"
    )
    with pytest.raises(RatchetError, match="no engine is configured"):
        make_prover(job)(serving.versions[0])
