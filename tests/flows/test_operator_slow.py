"""What an operator does, in real Chromium on a real stack: a night from Prefect's form, its pages there and in MLflow,
a rollback in the console and a release by MLflow's page, alerts of both and of a regression; and a night by itself.

The tests are one story: each goes on where the one before it ended.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from deploy.ledger.ledger import current, history
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.night.record import nights_of
from flows.stack.first_keys import first_keys
from infra.alerts.signature import signature_holds
from infra.database.open import open_database
from infra.sign_in import mlflow_login, prefect_headers
from tests.chromium import chromium, shot
from tests.flows.world import ONE_RECIPE, ratchet, start_stack, tell_feedback
from tests.infra.alerts.test_outbox import Receiver
from tests.prefect_api import ask_prefect
from tests.waiting import wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

# A challenger that is far worse than the base: all weights take two steps that are much too long (more would mend it).
WRECKED = {"objective": "sft", "tuner": "full", "epochs": 0.1, "batch_size": 4, "learning_rate": 0.9}
RECIPES = {**ONE_RECIPE["recipes"], "wrecked": {"name": "wrecked", "stages": [WRECKED]}}  # type: ignore[dict-item]


@dataclass
class Desk:
    config: PipelineConfig
    file: Path
    receiver: Receiver

    @property
    def api(self) -> str:
        return self.config.places.prefect_api

    @property
    def prefect(self) -> str:
        return self.api.removesuffix("/api")

    def deployment(self) -> str:
        found = ask_prefect(self.api, "GET", "/deployments/name/nightly/desk")
        return str(found["id"])

    def runs(self) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": ["nightly"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[dict[str, Any]] = ask_prefect(self.api, "POST", "/flow_runs/filter", json=body)
        return [run for run in found if run["state_type"] != "SCHEDULED"]


@pytest.fixture(scope="module")
def desk(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    quick = {
        "training": {**ONE_RECIPE, "recipes": RECIPES},
        # Half of the new users, so that one is soon found who gets the canary.
        "canary": {"steps": [0.5]},
        "alerts": {"webhooks": {"ops": {"url": receiver.url}}},
        "schedule": {"nightly": None, "watch": None},
    }
    stack = start_stack(tmp_path_factory.mktemp("operator"), tiny_base, **quick)
    try:
        tell_feedback(stack.config)
        yield Desk(stack.config, stack.file, receiver)
    finally:
        stack.stop()
        receiver.shutdown()
        receiver.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def _page(browser: Browser) -> Page:
    login = mlflow_login()
    assert login is not None
    page = browser.new_page(
        viewport={"width": 1360, "height": 900}, http_credentials={"username": login[0], "password": login[1]}
    )
    # As Prefect's sign-in page keeps it.
    said = prefect_headers()["Authorization"].removeprefix("Basic ")
    page.add_init_script(f"localStorage.setItem('prefect-password', '{said}')")
    page.set_default_timeout(60_000)
    return page


def test_alerts_arrive_and_automations_are_kept(desk: Desk, browser: Browser) -> None:
    assert json.loads(ratchet("alerts", "test", "--json", config=desk.file).stdout) == {"webhook:ops": None}
    assert _alert(desk, "test")["severity"] == "info"
    first = json.loads(ratchet("alerts", "sync", "--json", config=desk.file).stdout)
    assert set(first.values()) == {"made"}
    again = json.loads(ratchet("alerts", "sync", "--json", config=desk.file).stdout)
    assert again == dict.fromkeys(first, "unchanged")
    page = _page(browser)
    page.goto(f"{desk.prefect}/automations")
    page.get_by_text("runs that fell silent are crashed").first.wait_for()
    shot(page, "prefect-automations")
    page.close()


def test_a_night_is_started_from_prefects_form_and_tells_its_story(desk: Desk, browser: Browser) -> None:
    page = _page(browser)
    page.goto(f"{desk.prefect}/deployments/deployment/{desk.deployment()}/run")
    page.get_by_role("button", name="Submit").wait_for()
    page.wait_for_timeout(3000)
    shot(page, "prefect-form")
    shown = page.inner_text("body").casefold().replace("_", " ")
    for knob in ("recipes", "budget minutes", "snapshot", "gate", "dry run", "fresh", "force", "tenant", "note"):
        assert knob in shown, f"the form has no {knob}"
    assert "say what the night would train" in shown, "help texts are shown"
    page.get_by_role("button", name="Submit").click()
    run = wait("a run", desk.runs, 1200)[0]["id"]
    state = wait("its end", lambda: _ended(desk, run), 2400)
    assert state == "COMPLETED"
    page.goto(f"{desk.prefect}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.wait_for_timeout(3000)
    shot(page, "prefect-run")
    found = ask_prefect(desk.api, "POST", "/artifacts/filter", json={})
    wanted = {"intake", "plan", "drift", "leaderboard", "scorecard", "verdict", "durations", "mlflow-run", "console"}
    assert wanted <= {artifact["key"] for artifact in found}
    page.close()


def _ended(desk: Desk, run: str) -> str | None:
    state = ask_prefect(desk.api, "GET", f"/flow_runs/{run}")["state_type"]
    return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def test_mlflow_shows_the_night_and_the_version_a_person_can_decide_from(desk: Desk, browser: Browser) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(desk.config.places.mlflow)
    experiment = client.get_experiment_by_name("desk")
    assert experiment is not None
    night = nights_of(desk.config, "default")[-1]
    runs = {run.data.tags["ratchet.key"]: run for run in client.search_runs([experiment.experiment_id])}
    top = runs[f"night/{night.night_id}"]
    assert any(name.startswith("system/cpu") for name in top.data.metrics)
    assert {"items.json", "examples.json"} <= {e["path"] for e in json.loads(top.data.tags["mlflow.loggedArtifacts"])}
    canary = current(open_database(desk.config.places), "default").canary
    version = wait(
        "the model version",
        lambda: next(
            (v for v in client.search_model_versions("name = 'desk'") if v.tags.get("ratchet.version") == canary), None
        ),
        1200,
    )
    full = wait("its description", lambda: _described(client, version.version), 1200)
    assert full.tags["ratchet.run"] == top.info.run_id
    assert full.tags["ratchet.snapshot"] == night.steps["snapshot"]
    assert "canary" in full.description and night.night_id in full.description
    models = client.search_logged_models([experiment.experiment_id], filter_string=f"name = '{canary}'")
    assert len(models) == 1, "the adapter is kept once"
    page = _page(browser)
    page.goto(f"{desk.config.places.mlflow}/#/experiments/{experiment.experiment_id}/runs/{top.info.run_id}")
    page.get_by_text(night.night_id).first.wait_for()
    page.wait_for_timeout(3000)
    shot(page, "mlflow-night")
    page.goto(f"{desk.config.places.mlflow}/#/models/desk/versions/{version.version}")
    page.get_by_text("ratchet.snapshot").first.wait_for()
    shot(page, "mlflow-version")
    page.close()


def _described(client: Any, number: str) -> Any:
    found = client.get_model_version("desk", number)
    return found if found.description else None


def test_a_rollback_in_the_console_is_told_by_a_signed_alert(desk: Desk, browser: Browser) -> None:
    page = _page(browser)
    page.goto(f"{desk.config.places.gateway_url}/console#ledger")
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("API key").fill(json.loads(first_keys(desk.config).file.read_text())["default"]["admin"])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Roll back the canary").click()
    page.get_by_label("Reason").fill("wrong tone")
    page.get_by_label("Type ROLL BACK").fill("ROLL BACK")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    page.get_by_text("was taken back").first.wait_for()
    page.close()
    assert history(open_database(desk.config.places), "default")[-1].action == "rolled_back"

    alert = wait("the alert", lambda: _alert(desk, "rolled_back"), 90)
    assert alert["severity"] == "critical"
    assert alert["links"]["console"].endswith("/console#ledger")
    # Its page in MLflow says so too: a person decides from it.
    from mlflow.tracking import MlflowClient

    client = MlflowClient(desk.config.places.mlflow)
    version = history(open_database(desk.config.places), "default")[-1].version

    def told() -> bool:
        found = client.search_model_versions("name = 'desk'")
        return any("rolled_back" in (v.description or "") for v in found if v.tags.get("ratchet.version") == version)

    wait("its description", told, 60)


def _alert(desk: Desk, kind: str) -> Any:
    import os

    secret = os.environ["RATCHET_WEBHOOK_SECRET"]
    for headers, body in desk.receiver.received:
        value = json.loads(body)
        if value["kind"] == kind:
            assert signature_holds(secret, headers, body)
            return value
    return None


def test_the_champion_alias_moved_in_mlflows_page_is_followed_by_the_gateway(desk: Desk, browser: Browser) -> None:
    from mlflow.tracking import MlflowClient

    engine = open_database(desk.config.places)
    version = history(engine, "default")[-1].version
    ratchet("unbar", version, "--reason", "the tone was mended upstream", config=desk.file)
    ratchet("resume", "--reason", "the tone was mended upstream", config=desk.file)
    client = MlflowClient(desk.config.places.mlflow)
    found = client.search_model_versions("name = 'desk'")
    number = next(v.version for v in found if v.tags.get("ratchet.version") == version)
    standing = current(engine, "default")
    assert standing.canary is None

    page = _page(browser)
    page.goto(f"{desk.config.places.mlflow}/#/models/desk/versions/{number}")
    page.get_by_title("Add aliases").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").click()
    page.keyboard.type("champion")
    page.wait_for_timeout(700)
    page.keyboard.press("Enter")
    shot(page, "mlflow-alias")
    dialog.get_by_role("button", name="Save aliases").click()
    dialog.wait_for(state="detached")
    wait("an answer of the version", lambda: _answered_by(desk, version), 60)
    line = history(engine, "default")[-1]
    assert (line.action, line.version, line.actor) == ("canary", version, "mlflow")
    # It has to win the users first, as every release: the alias says champion again when the ledger does.
    wait("aliases as the ledger says", lambda: _aliases(client).get("challenger") == str(number), 1200)
    assert _aliases(client)["champion"] != str(number)
    page.reload()
    page.get_by_text("@ challenger").first.wait_for()
    shot(page, "mlflow-alias-followed")
    page.close()


def _answered_by(desk: Desk, version: str) -> bool:
    """Whether the gateway answers some new user by this version."""
    key = json.loads(first_keys(desk.config).file.read_text())["default"]["app"]
    body = {"model": "desk", "messages": [{"role": "user", "content": "my router"}], "max_tokens": 2}
    url, headers = f"{desk.config.places.gateway_url}/v1/chat/completions", {"Authorization": f"Bearer {key}"}
    found = httpx.post(url, json={**body, "user": f"new-{time.monotonic_ns()}"}, headers=headers, timeout=60)
    return bool(found.raise_for_status().json()["ratchet"]["version"] == version)


def _aliases(client: Any) -> dict[str, str]:
    return {name: str(number) for name, number in client.get_registered_model("desk").aliases.items()}


def test_a_challenger_that_regresses_is_refused_and_people_are_told(desk: Desk, browser: Browser) -> None:
    before = current(open_database(desk.config.places), "default")
    desk.receiver.received.clear()
    # The gate wants questions that no verdict has used.
    tell_feedback(desk.config, first=100)
    asked = {"request": {"recipes": ["wrecked"], "force": True, "note": "much too long steps"}}
    path = f"/deployments/{desk.deployment()}/create_flow_run"
    run = ask_prefect(desk.api, "POST", path, json={"parameters": asked})["id"]
    assert wait("its end", lambda: _ended(desk, run), 2400) == "COMPLETED"
    night = nights_of(desk.config, "default")[-1]
    assert night.flow_runs == (run,)
    assert night.steps["verdict"]["decision"] == "reject"
    alert = wait("the alert", lambda: _alert(desk, "held"), 90)
    assert alert["severity"] == "warning"
    assert "reject" in alert["title"] + alert["text"]
    assert alert["next_step"]
    assert alert["links"]["console"].endswith("/console#nights")
    after = current(open_database(desk.config.places), "default")
    assert (after.champion, after.canary) == (before.champion, before.canary), "what is live is left alone"

    page = _page(browser)
    page.goto(f"{desk.prefect}/runs/flow-run/{run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    page.wait_for_timeout(3000)
    shot(page, "prefect-rejected")
    page.goto(f"{desk.config.places.gateway_url}/console#nights/{night.night_id}")
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("API key").fill(json.loads(first_keys(desk.config).file.read_text())["default"]["admin"])
    page.keyboard.press("Enter")
    page.get_by_text("Verdict: reject").wait_for()
    shot(page, "console-rejected")
    page.close()


def test_a_night_comes_at_its_time_on_a_stack_that_is_left_alone(desk: Desk, browser: Browser) -> None:
    """The schedule is changed to every minute, as a person would; then nobody does anything."""
    before = {run["id"] for run in desk.runs()}
    tell_feedback(desk.config, conversations=20, first=60)
    values = yaml.safe_load(desk.file.read_text())
    values["schedule"]["nightly"] = "* * * * *"
    desk.file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert load_config(desk.file).schedule.nightly == "* * * * *"
    ratchet("down", config=desk.file)
    ratchet("up", config=desk.file)

    def came() -> dict[str, Any] | None:
        new = [run for run in desk.runs() if run["id"] not in before and run["state_type"] == "COMPLETED"]
        return next((run for run in new if run["auto_scheduled"]), None)

    run = wait("a scheduled night", came, 2400)
    assert run["expected_start_time"][17:19] == "00", "at the full minute, as the schedule says"
    passed = ask_prefect(desk.api, "GET", "/flow_run_states/", params={"flow_run_id": run["id"]})
    kinds = [state["type"] for state in sorted(passed, key=lambda state: state["timestamp"])]
    assert (kinds[0], kinds[-1]) == ("SCHEDULED", "COMPLETED")

    # The morning: what happened stands in the night's record, in the status, in the console and on Prefect's page.
    night = next(night for night in nights_of(desk.config, "default") if run["id"] in night.flow_runs)
    assert night.state == "done"
    assert night.outcome
    said = json.loads(ratchet("status", "--json", config=desk.file).stdout)
    assert night.outcome in {one["outcome"] for one in said["nights"]}
    page = _page(browser)
    page.goto(f"{desk.config.places.gateway_url}/console#live")
    page.get_by_role("button", name="Sign in").first.click()
    page.get_by_label("API key").fill(json.loads(first_keys(desk.config).file.read_text())["default"]["admin"])
    page.keyboard.press("Enter")
    page.get_by_text("The loop's timeline").wait_for()
    page.locator("ol.time a", has_text=night.night_id).or_(page.get_by_text(night.outcome[:60])).first.wait_for()
    shot(page, "console-morning")
    page.goto(f"{desk.prefect}/runs/flow-run/{run['id']}")
    page.get_by_text("Completed").first.wait_for()
    shot(page, "prefect-morning")
    page.close()
