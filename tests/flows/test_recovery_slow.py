"""Whatever dies, the night goes on by itself: a run's process, Prefect's server, the machine. Never two nights at once,
and what came due while the machine was off is made up for once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.nights.record import NightRecord
from flows.night.record import nights_of
from infra.alerts.outbox import list_alerts
from infra.database.open import open_database
from infra.processes.stack import read_pid_file, status
from infra.sign_in import prefect_headers
from tests.flows.world import ONE_RECIPE, Stack, ratchet, start_stack, tell_feedback
from tests.waiting import wait

pytestmark = pytest.mark.slow

ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def stack(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Long enough to be killed in the middle.
    long = {"tiny-sft": {"name": "tiny-sft", "stages": [{"objective": "sft", "epochs": 6, "batch_size": 4}]}}
    training = {**ONE_RECIPE, "recipes": long}
    never = {"nightly": None, "watch": None}
    stack = start_stack(tmp_path_factory.mktemp("recovery"), tiny_base, training=training, schedule=never)
    try:
        tell_feedback(stack.config)
        yield stack
    finally:
        stack.stop()


def ask(stack: Stack, path: str, body: Any = None) -> Any:
    """A call of Prefect's API, tried again while its server is being restarted."""
    deadline = time.monotonic() + 300
    while True:
        try:
            url = f"{stack.config.places.prefect_api}/{path}"
            method = "GET" if body is None else "POST"
            answer = httpx.request(method, url, json=body, headers=prefect_headers(), timeout=30)
            if answer.is_success:
                return answer.json()
            why = answer.text
        except httpx.HTTPError as error:
            why = repr(error)
        assert time.monotonic() < deadline, why
        time.sleep(1)


def deployment(stack: Stack) -> str:
    return str(ask(stack, "deployments/name/nightly/desk")["id"])


def begin(stack: Stack) -> str:
    """A night on demand, through Prefect."""
    body = {"parameters": {"request": {"force": True}, "config": str(stack.file)}}
    return str(ask(stack, f"deployments/{deployment(stack)}/create_flow_run", body)["id"])


def nights(stack: Stack) -> list[NightRecord]:
    return nights_of(stack.config, "default")


def in_training(stack: Stack, run: str) -> int | None:
    """The process that works on the run's night, once it trains."""
    night = next((night for night in nights(stack) if run in night.flow_runs), None)
    if night is None or "plan" not in night.steps:
        return None
    if not any(stack.config.places.stages_dir.glob(".*.work/progress.jsonl")):
        return None
    said = (stack.config.places.nights_dir / "default.lock").read_text()
    return int(said.split()[1].rstrip(","))


def ended(stack: Stack, known: int) -> NightRecord | None:
    """The night after the first ``known`` ones, once it is closed."""
    found = nights(stack)
    assert len(found) <= known + 1, "no second night beside the half-done one"
    return found[-1] if len(found) == known + 1 and found[-1].state != "running" else None


def states(stack: Stack, night: NightRecord) -> list[str]:
    return [ask(stack, f"flow_runs/{run}")["state_type"] for run in night.flow_runs]


def one_after_the_other(found: list[NightRecord]) -> bool:
    return all(one.finished_at is not None and one.finished_at <= other.started_at for one, other in pairwise(found))


def test_a_night_whose_process_is_killed_is_taken_up_by_itself(stack: Stack) -> None:
    known = len(nights(stack))
    run = begin(stack)
    worker = wait("training", lambda: in_training(stack, run), 2400)
    # Meanwhile nobody else gets a night: neither through Prefect nor by hand.
    second = begin(stack)
    assert (
        wait("its end", lambda: (ask(stack, f"flow_runs/{second}")["state_type"] in ENDS and "end") or None, 2400)
        == "end"
    )
    assert ask(stack, f"flow_runs/{second}")["state_type"] == "CANCELLED"
    os.kill(worker, signal.SIGKILL)
    night = wait("the end of the night", lambda: ended(stack, known), 2400)
    assert (night.state, night.attempts) == ("done", 2)
    assert states(stack, night) == ["CRASHED", "COMPLETED"]
    told = [alert for alert in list_alerts(open_database(stack.config.places)) if alert.kind == "run_failed"]
    assert [alert.severity for alert in told] == ["warning"]
    assert "taken up" in told[0].next_step


def test_a_night_outlives_a_restart_of_prefects_server(stack: Stack) -> None:
    known = len(nights(stack))
    tell_feedback(stack.config, first=200)  # on the same data nothing would be trained again
    run = begin(stack)
    wait("training", lambda: in_training(stack, run), 2400)
    entry = read_pid_file(stack.config.places.run_dir / "prefect.pid")
    assert entry is not None
    os.kill(entry.identity.pid, signal.SIGKILL)
    night = wait("the end of the night", lambda: ended(stack, known), 2400)
    assert night.state == "done"
    wait("no run that hangs", lambda: all(state in ENDS for state in states(stack, night)) or None, 2400)
    # The slot of the deployment is free again: a next run is not cancelled.
    after = begin(stack)
    wait("the next night", lambda: ended(stack, known + 1), 2400)
    assert after in nights(stack)[-1].flow_runs


def test_after_a_power_cut_up_finishes_the_night_and_makes_up_for_the_missed_ones_once(stack: Stack) -> None:
    known = len(nights(stack))
    values = yaml.safe_load(stack.file.read_text())
    values["schedule"]["nightly"] = "*/2 * * * *"
    tell_feedback(stack.config, first=400)
    run = begin(stack)
    wait("training", lambda: in_training(stack, run), 2400)
    # The schedule a person has, here every other minute; the config says the same when the machine is back.
    cron = [{"schedule": {"cron": "*/2 * * * *", "timezone": "UTC"}, "active": True}]
    ask(stack, f"deployments/{deployment(stack)}/schedules", cron)
    stack.file.write_text(yaml.safe_dump(values, sort_keys=False))
    wait("scheduled runs", lambda: scheduled(stack), 2400)
    cut = datetime.now(UTC)
    cut_the_power(stack)
    half_done = nights(stack)[-1]
    assert half_done.state == "running"
    time.sleep(250)  # two nights come due
    ratchet("up", config=stack.file)
    back = datetime.now(UTC)

    wait(
        "the half-done night",
        lambda: next(n for n in nights(stack) if n.night_id == half_done.night_id).finished_at,
        2400,
    )
    missed = [run for run in scheduled(stack, None) if cut < datetime.fromisoformat(run["expected_start_time"]) < back]
    assert len(missed) >= 2
    wait("the missed runs", lambda: all(_state(stack, run["id"]) in ENDS for run in missed) or None, 2400)
    made = [night for night in nights(stack)[known:] if {run["id"] for run in missed} & set(night.flow_runs)]
    assert len(made) <= 1, "the schedule catches up once"
    night = next(night for night in nights(stack) if night.night_id == half_done.night_id)
    assert (night.state, night.attempts) == ("done", 2)
    assert states(stack, night)[0] == "CRASHED"
    finished = [night for night in nights(stack) if night.finished_at is not None]
    assert one_after_the_other(finished), "never two at once"
    later = wait(
        "a night at its time",
        lambda: next((n for n in nights(stack) if n.started_at > back and n.finished_at), None),
        2400,
    )
    assert later.state == "done"


def _state(stack: Stack, run: str) -> str:
    return str(ask(stack, f"flow_runs/{run}")["state_type"])


def scheduled(stack: Stack, state: str | None = "SCHEDULED") -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {"deployments": {"name": {"any_": ["desk"]}}, "flows": {"name": {"any_": ["nightly"]}}}
    if state is not None:
        wanted["flow_runs"] = {"state": {"type": {"any_": [state]}}}
    return [run for run in ask(stack, "flow_runs/filter", wanted) if run["auto_scheduled"]]


def cut_the_power(stack: Stack) -> None:
    """Kill -9 everything of the stack: its keeper first, so that it starts nothing again."""
    run_dir = stack.config.places.run_dir
    entries = [read_pid_file(run_dir / "supervisor.pid")]
    entries += [read_pid_file(path) for path in sorted(run_dir.glob("*.pid")) if path.stem != "supervisor"]
    groups = [entry.identity.pid for entry in entries if entry is not None]
    for leader in groups:
        for process in [leader, *below(leader)]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
    wait("the silence", lambda: not status(run_dir).running or None, 30)


def below(leader: int) -> list[int]:
    """All processes that descend from one."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(leader).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
