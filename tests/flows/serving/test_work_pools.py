"""Deployments on work pools, prefect.yaml, and the events and automations on a real Prefect server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config.load import load_config
from flows.serving.plans import deployment_plans
from flows.serving.work_pools import job_variables
from infra.alerts.outbox import Alert, enqueue, list_alerts
from infra.alerts.prefect_events import event_of, mirror_alerts
from infra.database.connect import begin_write
from infra.database.open import open_database
from tests.flows.world import ROOT, Stack, ratchet, write_pipeline
from tests.prefect_api import ask_prefect
from tests.waiting import wait


def test_prefect_yaml_holds_every_plan_by_module_entrypoint() -> None:
    found = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    plans = deployment_plans(load_config(ROOT / "ratchet.yaml"), "x")
    assert [(one["entrypoint"], one["name"]) for one in found] == [(plan.entrypoint, plan.name) for plan in plans]
    for one in found:
        assert ":" not in one["entrypoint"] and "/" not in one["entrypoint"], "a path entrypoint shadows packages"
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    night = found[0]
    assert night["schedules"] == [{"cron": "0 3 * * *", "timezone": "UTC", "slug": "nightly", "active": True}]


def test_each_tenant_has_a_night_of_its_own(tiny_base: Path, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, tiny_base)
    config = load_config(file, overrides={"tenants": ["a", "b"], "schedule.timezone": "Europe/Berlin"})
    nights = [plan for plan in deployment_plans(config, file) if plan.flow == "nightly"]
    assert [(plan.name, plan.parameters["request"]["tenant"]) for plan in nights] == [("desk-a", "a"), ("desk-b", "b")]
    assert {plan.timezone for plan in nights} == {"Europe/Berlin"}


def test_job_variables_hold_no_secret(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_WEBHOOK_SECRET", "do-not-tell")
    config = load_config(write_pipeline(tmp_path, tiny_base))
    for variables in (job_variables(config, "process", None), job_variables(config, "docker", "image:1")):
        assert "do-not-tell" not in json.dumps(variables)


def _scheduled(api: str, deployment: str) -> list[dict[str, Any]]:
    body = {
        "deployments": {"name": {"any_": [deployment]}},
        "flows": {"name": {"any_": ["nightly"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    found: list[dict[str, Any]] = ask_prefect(api, "POST", "/flow_runs/filter", json=body)
    return found


def test_scheduled_runs_really_appear(running_stack: Stack) -> None:
    """A scheduler that fails in silence leaves the list empty for ever; manual runs would still work."""
    api = running_stack.config.places.prefect_api
    wait("a scheduled run, so the server's scheduler does not work: it", lambda: _scheduled(api, "desk"), pause=1)
    times = sorted(run["expected_start_time"] for run in _scheduled(api, "desk"))
    assert all(at[11:16] == "03:00" for at in times), times


def test_deploy_registers_on_a_work_pool_and_again_changes_nothing(running_stack: Stack) -> None:
    first = json.loads(ratchet("deploy", "--pool", "local", "--json", config=running_stack.file).stdout)
    again = json.loads(ratchet("deploy", "--pool", "local", "--json", config=running_stack.file).stdout)
    assert first["made"] is True
    assert again["made"] is False
    assert again["deployments"] == first["deployments"]
    api = running_stack.config.places.prefect_api
    night = ask_prefect(api, "GET", f"/deployments/{first['deployments']['nightly/desk']}")
    assert (night["work_pool_name"], night["entrypoint"]) == ("local", "flows.nightly.nightly")
    wrong = ratchet(
        "deploy", "--pool", "local", "--type", "docker", "--image", "x", config=running_stack.file, check=False
    )
    assert wrong.returncode == 2
    assert "has the type process" in wrong.stderr
    # The stack's own runner must have its deployments back: they carry no pool.
    for identity in first["deployments"].values():
        ask_prefect(api, "PATCH", f"/deployments/{identity}", json={"work_pool_name": None})


def test_alerts_become_prefect_events_once(running_stack: Stack, tmp_path: Path) -> None:
    config = running_stack.config
    alert = Alert(kind="drift", severity="warning", tenant="default", title="inputs moved", payload={"share": 0.7})
    with begin_write(open_database(config.places)) as connection:
        enqueue(connection, alert)
    wait(
        "the mirror of alerts, which the running deployments keep by themselves,",
        lambda: any(
            "prefect:events" in a.delivered for a in list_alerts(open_database(config.places)) if a.kind == "drift"
        ),
    )
    api = config.places.prefect_api
    # A crash after Prefect took it sends it again, with the same id.
    ask_prefect(api, "POST", "/events", json=[event_of(alert)])
    asked = {"filter": {"event": {"name": ["ratchet.drift"]}}}
    found = wait("the event", lambda: ask_prefect(api, "POST", "/events/filter", json=asked)["events"])
    assert len(found) == 1
    assert found[0]["resource"]["prefect.resource.id"] == "ratchet.tenant.default"
    assert found[0]["payload"]["facts"] == {"share": 0.7}
    away = config.places.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api", "home": tmp_path})
    with begin_write(open_database(away)) as connection:
        enqueue(connection, Alert(kind="drift", title="while Prefect is down"))
    assert mirror_alerts(away, config.alerts) == 0
    assert "prefect:events" in list_alerts(open_database(away))[0].failing
    back = away.model_copy(update={"prefect_api_url": api})
    assert mirror_alerts(back, config.alerts.model_copy(update={"retry_seconds": 0.001})) in (0, 1)


def test_automations_are_made_once_and_updated(running_stack: Stack) -> None:
    first = json.loads(ratchet("alerts", "sync", "--json", config=running_stack.file).stdout)
    assert set(first.values()) == {"made"}
    again = json.loads(ratchet("alerts", "sync", "--json", config=running_stack.file).stdout)
    assert set(again.values()) == {"unchanged"}
    assert again.keys() == first.keys()
    api = running_stack.config.places.prefect_api
    [ours] = [a for a in ask_prefect(api, "POST", "/automations/filter", json={}) if a["name"] in first]
    ask_prefect(api, "PATCH", f"/automations/{ours['id']}", json={"enabled": False})
    mended = json.loads(ratchet("alerts", "sync", "--json", config=running_stack.file).stdout)
    assert mended == {ours["name"]: "updated"}
