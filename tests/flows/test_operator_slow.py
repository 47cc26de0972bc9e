"""What an operator does, in real Chromium on a real stack: a night from Prefect's form, its pages there and in MLflow,
a rollback in the console with its alert; and a night that comes by itself."""

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

from deploy.ledger import current, history
from flows.config import PipelineConfig, load_config
from flows.first_keys import first_keys
from flows.night import nights_of
from infra.alerts import signature_holds
from tasks.opened import database
from tests.chromium import chromium, shot
from tests.flows.world import ratchet, start_stack, tell_feedback
from tests.infra.test_alerts import Receiver

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

RECIPES = {"tiny-sft": {"name": "tiny-sft", "stages": [{"objective": "sft", "epochs": 2, "batch_size": 4}]}}


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
        found = httpx.get(f"{self.api}/deployments/name/nightly/desk").raise_for_status().json()
        return str(found["id"])

    def runs(self) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": ["nightly"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[dict[str, Any]] = httpx.post(f"{self.api}/flow_runs/filter", json=body).json()
        return [run for run in found if run["state_type"] != "SCHEDULED"]


@pytest.fixture(scope="module")
def desk(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    quick = {
        "training": {
            "methods": ["tiny-sft"],
            "recipes": RECIPES,
            "minimum_examples": 2,
            "threads": 1,
            "dtype": "float32",
        },
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


def _wait(what: str, found: Any, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(1)


def _page(browser: Browser) -> Page:
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(60_000)
    return page


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
    run = _wait("a run", desk.runs)[0]["id"]
    state = _wait("its end", lambda: _ended(desk, run))
    assert state == "COMPLETED"
    page.goto(f"{desk.prefect}/runs/flow-run/{run}")
    page.get_by_role("tab", name="Artifacts").click()
    page.wait_for_timeout(3000)
    shot(page, "prefect-run")
    found = httpx.post(f"{desk.api}/artifacts/filter", json={}).json()
    wanted = {"intake", "plan", "drift", "leaderboard", "scorecard", "verdict", "durations", "mlflow-run", "console"}
    assert wanted <= {artifact["key"] for artifact in found}
    page.close()


def _ended(desk: Desk, run: str) -> str | None:
    state = httpx.get(f"{desk.api}/flow_runs/{run}").json()["state_type"]
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
    canary = current(database(desk.config.places), "default").canary
    version = _wait(
        "the model version",
        lambda: next(
            (v for v in client.search_model_versions("name = 'desk'") if v.tags.get("ratchet.version") == canary), None
        ),
    )
    full = _wait("its description", lambda: _described(client, version.version))
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
    assert history(database(desk.config.places), "default")[-1].action == "rolled_back"

    alert = _wait("the alert", lambda: _alert(desk, "rolled_back"), 90)
    assert alert["severity"] == "critical"
    assert alert["links"]["console"].endswith("/console#ledger")


def _alert(desk: Desk, kind: str) -> Any:
    import os

    secret = os.environ["RATCHET_WEBHOOK_SECRET"]
    for headers, body in desk.receiver.received:
        value = json.loads(body)
        if value["kind"] == kind:
            assert signature_holds(secret, headers, body)
            return value
    return None


def test_a_night_comes_at_its_time_on_a_stack_that_is_left_alone(desk: Desk) -> None:
    """The schedule is changed to every minute, as a person would; then nobody does anything."""
    before = {run["id"] for run in desk.runs()}
    values = yaml.safe_load(desk.file.read_text())
    values["schedule"]["nightly"] = "* * * * *"
    desk.file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert load_config(desk.file).schedule.nightly == "* * * * *"
    ratchet("down", config=desk.file)
    ratchet("up", config=desk.file)

    def came() -> dict[str, Any] | None:
        new = [run for run in desk.runs() if run["id"] not in before and run["state_type"] == "COMPLETED"]
        return next((run for run in new if run["auto_scheduled"]), None)

    run = _wait("a scheduled night", came, 400)
    assert run["expected_start_time"][17:19] == "00", "at the full minute, as the schedule says"
    night = nights_of(desk.config, "default")[-1]
    assert run["id"] in night.flow_runs
    assert night.state == "done"
    assert night.outcome
