"""A release on the real engine and gateway: proved, dealt to users, rated by them, and taken back."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.canary.policy import CanaryPolicy
from deploy.config import ENGINE_KEY as ENGINE_KEY_NAME
from deploy.controller.canary_watch import watch_canary
from deploy.controller.job import ControllerJob
from deploy.controller.proving import make_prover, prove_everywhere
from deploy.engines.client import EngineClient
from deploy.ledger.evidence import Override, VerdictSummary
from deploy.ledger.lease import canary_lease, renew
from deploy.ledger.ledger import current, history
from deploy.release.lifecycle import start
from deploy.release.opening import Releases
from deploy.versions.parity import ParityError, prover
from infra.alerts.outbox import list_alerts
from infra.database.connect import now
from infra.errors import RatchetError, Unavailable
from tests.deploy.serving_stack import BASE, ENGINE_KEY, Stack

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
    opened = Releases(database, TENANT, versions_dir=serving.versions_dir, policy=POLICY, prove=prove).open(
        version, actor="ada", override=Override(actor="ada", reason="to see it go back")
    )
    assert opened.evidence.parity is not None
    assert opened.evidence.parity.version == version and (opened.evidence.parity.tokens or 0) > 0
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

    judged = watch_canary(database, TENANT, policy=POLICY, holder="test", at=now() + timedelta(seconds=120))
    assert judged is not None and judged.rated == 60 and judged.decision == "back"
    counted = sum(served == version for served in versions.values())
    assert judged.version.rated == judged.version.complaints == counted and judged.control.complaints == 0
    assert current(database, TENANT).champion == base and history(database, TENANT)[-1].action == "rolled_back"


def test_a_version_that_is_not_what_its_probe_says_is_never_released(serving: Stack, tmp_path: Path) -> None:
    tenant, version, other = "mislabelled", *serving.versions[:2]
    shutil.copytree(serving.versions_dir / version, tmp_path / version)
    shutil.copy(serving.versions_dir / other / "probe.json", tmp_path / version / "probe.json")
    start(serving.database, tenant, BASE)
    before = current(serving.database, tenant)
    with serving.engine() as engine, pytest.raises(ParityError, match=f"what the engine serves as {version} is not"):
        Releases(
            serving.database,
            tenant,
            versions_dir=tmp_path,
            policy=POLICY,
            prove=prover(engine, tmp_path, base_version=BASE),
        ).open(version, actor="night", gate=VerdictSummary(decision="promote"))
    assert current(serving.database, tenant) == before
    [told] = [a for a in list_alerts(serving.database, limit=500) if a.tenant == tenant and a.kind != "baseline"]
    assert told.severity == "critical" and version in told.title


def test_an_engine_that_is_away_keeps_no_release_from_the_others(serving: Stack) -> None:
    version = serving.versions[0]
    with serving.engine() as engine, EngineClient("http://127.0.0.1:9", "key") as nobody:
        here, away = (prover(each, serving.versions_dir, base_version=BASE) for each in (engine, nobody))
        found = prove_everywhere([away, here])(version)
        assert (found.version, found.engines, found.engines_away) == (version, 1, 1)
        assert "engines_away" not in prove_everywhere([here, here])(version).model_dump()
        with pytest.raises(Unavailable):
            prove_everywhere([away])(version)


def test_without_an_engine_nothing_is_proved(serving: Stack) -> None:
    job = ControllerJob(
        database_url=serving.gateway_job.database_url, versions_dir=serving.versions_dir, base_version="base"
    )
    with pytest.raises(RatchetError, match="no engine is configured"):
        make_prover(job)(serving.versions[0])
