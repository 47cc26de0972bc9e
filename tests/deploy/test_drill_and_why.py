"""`ratchet drill` and `ratchet why` on a running stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.ledger.evidence import VerdictSummary
from deploy.ledger.ledger import current, history
from deploy.ledger.state import DRILL_TENANT
from deploy.lineage.explain import explain
from deploy.release.manual_controls import bar
from deploy.rollback_drill import drill
from deploy.versions.parity import prover
from infra.errors import NotFound
from tests.deploy.serving_stack import BASE, Stack, wait_until_routed


def test_a_drill_proves_a_rollback_and_leaves_no_trace_on_the_users_tenant(serving: Stack) -> None:
    before = current(serving.database, "default")
    version = serving.versions[1]
    for _ in range(2):  # the second finds what the first left in the ledger
        with serving.engine() as engine:
            report = drill(
                serving.database,
                gateway_url=serving.url,
                base_version=BASE,
                version=version,
                versions_dir=serving.versions_dir,
                prove=prover(engine, serving.versions_dir, base_version=BASE),
            )
        assert (report.failed, report.late, report.barred, report.alerted) == (0, 0, True, True)
        assert report.requests > 3
    assert current(serving.database, "default") == before
    own = current(serving.database, DRILL_TENANT)
    assert (own.champion, own.barred, own.paused, own.watch) == (BASE, {}, False, None)


def test_why_leads_from_an_answer_to_its_release_gate_and_making(serving: Stack) -> None:
    tenant, version = "why", serving.versions[0]
    serving.say("baseline", BASE, tenant=tenant)
    gate = {"decision": "promote", "scorecard": "s-1", "reason": "better by 9 points"}
    serving.say("gated", version, tenant=tenant, evidence={"gate": gate})
    serving.say("canary", version, tenant=tenant, share=0.5, previous=BASE)
    line = serving.say("champion", version, tenant=tenant, previous=BASE)
    wait_until_routed(serving, line)
    ask = {"model": "desk", "messages": [{"role": "user", "content": "refund"}], "max_tokens": 1, "user": "ada"}
    with serving.client("chat", "feedback", tenant=tenant) as http:
        answered = http.post("/v1/chat/completions", json=ask).json()["id"]
        http.post("/v1/feedback", json={"interaction_id": answered, "kind": "thumb", "up": True})
    found = explain(serving.database, serving.versions_dir, tenant, answered, shared="default")
    assert (found.version, found.arm, found.feedback) == (version, "champion", 1)
    assert found.release == history(serving.database, tenant)[-1]
    assert found.gated is not None and found.gated.evidence.gate == VerdictSummary.model_validate(gate)
    assert found.record is not None and found.record.name.startswith("tiny ")
    assert [each.action for each in found.lines] == ["gated", "canary", "champion"]
    json.dumps(found.model_dump(mode="json"))
    with pytest.raises(NotFound, match="no interaction"):
        explain(serving.database, serving.versions_dir, "default", answered, shared="default")


def test_why_finds_the_shared_champions_release_behind_an_answer_to_a_tenant_without_one(serving: Stack) -> None:
    tenant = "why-shared"
    wait_until_routed(serving, serving.say("baseline", BASE, tenant=tenant))
    ask = {"model": "desk", "messages": [{"role": "user", "content": "refund"}], "max_tokens": 1, "user": "ada"}
    with serving.client("chat", tenant=tenant) as http:
        answered = http.post("/v1/chat/completions", json=ask).json()["id"]
    serving.say("gated", serving.versions[2], tenant=tenant)  # its own first release comes later
    found = explain(serving.database, serving.versions_dir, tenant, answered, shared="default")
    shared = current(serving.database, "default")
    assert found.version == shared.champion
    assert found.release is not None and (found.release.tenant, found.release.seq) == ("default", shared.champion_seq)


def test_a_release_names_the_barred_version_it_behaves_like(serving: Stack, tmp_path: Path) -> None:
    from deploy.canary.policy import CanaryPolicy
    from deploy.ledger.evidence import Override, Proof
    from deploy.release.opening import Releases
    from infra.alerts.outbox import list_alerts

    tenant = "twins"
    bad, new = serving.versions[1:3]
    serving.say("baseline", BASE, tenant=tenant)
    bar(serving.database, tenant, bad, actor="ada", reason="rude")
    line = Releases(
        serving.database,
        tenant,
        versions_dir=serving.versions_dir,
        policy=CanaryPolicy(),
        prove=lambda name: Proof(version=name),
    ).open(new, actor="ada", override=Override(actor="ada", reason="now"))
    like = line.evidence.model_dump()["like_barred"]
    assert like["version"] == bad and 0.0 < like["likeness"] < 0.9
    [opened] = [
        a for a in list_alerts(serving.database, limit=200) if a.tenant == tenant and a.kind == "release_opened"
    ]
    assert "behaves almost like" not in opened.text
