"""A person's word on a release: yes and no from the command line, and no answer in time is a no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.ledger.ledger import history
from deploy.nights.record import NightRecord
from flows.config.pipeline import PipelineConfig
from flows.config.prefect_environment import prefect_environment
from flows.night.record import nights_of
from infra.alerts.outbox import list_alerts
from infra.database.open import open_database
from tests.flows.world import ONE_RECIPE, ROOT, Stack, ratchet
from tests.prefect_api import ask_prefect

WAITS = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from prefect import flow
from prefect.runtime import flow_run
from evaluation.gate.decide import decide
from flows.config.load import load_config
from deploy.nights.record import NightRecord
from deploy.nights.request import NightRequest
from infra.artifact import atomic_write
from flows.night.approval_form import ask_approval
from tests.evaluation.cards import policy, scorecard, share

@flow(name="waits")
def waits(name, hours):
    config = load_config(Path(sys.argv[1]))
    file = NightRecord(night_id=name, tenant="default", request=NightRequest(), config={},
                       flow_runs=(str(flow_run.id),), started_at=datetime.now(timezone.utc))
    folder = config.places.nights_dir / name
    folder.mkdir(parents=True)
    atomic_write(folder / "night.json", file.model_dump_json())
    verdict = decide(scorecard({"champion": share(60, 20), "good": share(60, 45)}), policy(require_approval=True))
    said = ask_approval(verdict, hours=hours, poll_seconds=1) or ""
    atomic_write(folder / "night.json", file.model_copy(update={"state": "done"}).model_dump_json())
    return said

print("SAID:" + waits(sys.argv[2], float(sys.argv[3])))
"""


@contextmanager
def begin(stack: Stack, name: str, hours: float) -> Iterator[subprocess.Popen[str]]:
    """A night that waits for a word, in a process that does not outlive the test."""
    environment = {**os.environ, **prefect_environment(stack.config), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WAITS, str(stack.file), name, str(hours)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def paused_run(stack: Stack, name: str, process: subprocess.Popen[str]) -> str:
    """Wait until the night's flow run is paused; its id."""
    file = stack.config.places.nights_dir / name / "night.json"
    while True:
        assert process.poll() is None, "it ended before it waited"
        time.sleep(0.3)
        if file.exists():
            run = str(json.loads(file.read_text())["flow_runs"][0])
            if ask_prefect(stack.config.places.prefect_api, "GET", f"/flow_runs/{run}")["state_type"] == "PAUSED":
                return run


@pytest.mark.parametrize(("word", "expected"), [("approve", ""), ("decline", "did not approve it: too risky")])
def test_a_waiting_night_takes_an_answer_from_the_command_line(running_stack: Stack, word: str, expected: str) -> None:
    name = f"waits-{word}"
    with begin(running_stack, name, 1.0) as process:
        paused_run(running_stack, name, process)
        found = json.loads(ratchet(word, name, "--comment", "too risky", "--json", config=running_stack.file).stdout)
        assert found["approved"] is (word == "approve")
        out, _ = process.communicate(timeout=120)
    said = out.rsplit("SAID:", 1)[1].strip()
    assert said.endswith(expected) and bool(said) is bool(expected)
    done = ratchet(word, name, config=running_stack.file, check=False)
    assert done.returncode == 2 and "it waits for nobody" in done.stderr


def test_no_answer_in_time_means_no(running_stack: Stack) -> None:
    with begin(running_stack, "waits-long", 3 / 3600) as process:
        out, _ = process.communicate(timeout=120)
    assert "no answer means no" in out


def test_a_night_that_does_not_wait_is_said(running_stack: Stack, tmp_path: Path) -> None:
    done = ratchet("approve", "no-such-night", config=running_stack.file, check=False)
    assert done.returncode == 2 and "no night 'no-such-night'" in done.stderr


@pytest.mark.slow
def test_a_real_night_waits_survives_a_kill_and_takes_a_no(running_stack: Stack, tmp_path: Path) -> None:
    gate = {**running_stack.config.gate.model_dump(mode="json"), "require_approval": True}
    config = running_stack.neighbour(tmp_path, training=ONE_RECIPE, gate=gate)
    file = tmp_path / "ratchet.yaml"
    command = [sys.executable, "-m", "flows.cli", "run", "nightly", "--json", "--config", str(file)]
    asked = []
    for last in (False, True):
        if last:  # nobody would hear the answer
            deaf = ratchet("approve", config=file, check=False)
            assert deaf.returncode == 2 and "no process works on it" in deaf.stderr
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                night = _until_paused(config, process, runs=1 + last)
                asked.append(night.steps["approval asked"])
                if last:
                    shown = ratchet("decline", "--comment", "too risky", config=file).stdout
                    assert "# Release v" in shown and "95% interval" in shown and "report.html" in shown
                    out, _ = process.communicate(timeout=300)
            finally:
                process.kill()
    found = json.loads(out[out.index("{") :])
    assert (found["state"], found["decision"]) == ("done", "promote") and "did not approve it: too risky" in out
    assert asked[0] == asked[1], "the time limit did not begin anew"
    database_ = open_database(config.places)
    assert [line.action for line in history(database_, "default")] == ["baseline", "held"]
    assert [a.kind for a in list_alerts(database_) if a.kind == "approval_needed"] == ["approval_needed"]


def _until_paused(config: PipelineConfig, process: subprocess.Popen[str], *, runs: int) -> NightRecord:
    """Wait until the only night's flow run of that number is paused; the night."""
    while True:
        assert process.poll() is None, "it ended before it waited"
        time.sleep(0.5)
        nights = nights_of(config, "default")
        if nights and len(nights[-1].flow_runs) == runs and "approval asked" in nights[-1].steps:
            run = nights[-1].flow_runs[-1]
            if ask_prefect(config.places.prefect_api, "GET", f"/flow_runs/{run}")["state_type"] == "PAUSED":
                return nights[-1]
