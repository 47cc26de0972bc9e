"""Start, watch, restart and stop real servers: small HTTP servers on free ports of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import UserError
from infra.processes.identity import ProcessIdentity, alive, identify, stop_tree
from infra.processes.stack import ProcessSpec, StackPlan, down, read_pid_file, status, up


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server(folder: Path, name: str, *, after: tuple[str, ...] = ()) -> ProcessSpec:
    port = free_port()
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)),
        port=port,
        health_url=f"http://127.0.0.1:{port}/",
        log_file=folder / f"{name}.log",
        after=after,
        ready_seconds=30,
    )


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[StackPlan]:
    first = server(tmp_path, "first")
    plan = StackPlan(
        run_dir=tmp_path / "run",
        log_file=tmp_path / "stack.log",
        processes=(first, server(tmp_path, "second", after=("first",))),
        poll_seconds=0.05,
    )
    yield plan
    down(plan.run_dir)


def pids(plan: StackPlan) -> dict[str, int]:
    return {part.name: part.pid for part in status(plan.run_dir).parts if part.pid is not None}


def wait_until_healthy(plan: StackPlan, *, restarts_of: str, at_least: int) -> None:
    for _ in range(600):
        state = status(plan.run_dir)
        restarts = {part.name: part.restarts for part in state.parts}
        if state.healthy and restarts[restarts_of] >= at_least:
            return
        time.sleep(0.05)
    raise AssertionError(f"not healthy again: {status(plan.run_dir)}")


def test_up_starts_all_parts_and_a_second_up_changes_nothing(plan: StackPlan) -> None:
    lines: list[str] = []
    assert up(plan, on_progress=lines.append) is True
    before = pids(plan)
    assert set(before) == {"first", "second"}
    assert up(plan) is False
    assert pids(plan) == before
    # A look may miss that a part was starting; that it was seen at all only after the first was ready says the same.
    ready_first = next(i for i, line in enumerate(lines) if line.startswith("first: ready"))
    seen = [i for i, line in enumerate(lines) if line.startswith(("second: starting", "second: ready"))]
    assert seen and min(seen) >= ready_first, "second must wait for first"


def test_down_stops_what_up_started_and_nothing_else(plan: StackPlan, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        up(plan)
        identities = [identify(pid) for pid in pids(plan).values()]
        assert set(down(plan.run_dir)) == {"first", "second", "supervisor"}
        assert not any(alive(identity) for identity in identities)
        assert bystander.poll() is None
        assert down(plan.run_dir) == []
        assert status(plan.run_dir).running is False
        bystander.kill()


def test_a_killed_part_is_restarted_and_reported(plan: StackPlan) -> None:
    up(plan)
    before = pids(plan)
    os.kill(before["first"], signal.SIGKILL)
    wait_until_healthy(plan, restarts_of="first", at_least=1)
    after = pids(plan)
    assert after["first"] != before["first"]
    assert after["second"] == before["second"]
    part = next(part for part in status(plan.run_dir).parts if part.name == "first")
    assert part.last_exit == "with signal 9"


def test_parts_survive_a_killed_supervisor_and_are_adopted(plan: StackPlan) -> None:
    up(plan)
    before = pids(plan)
    entry = read_pid_file(plan.run_dir / "supervisor.pid")
    assert entry is not None
    os.kill(entry.identity.pid, signal.SIGKILL)
    while alive(entry.identity):
        time.sleep(0.01)
    assert status(plan.run_dir).running is False
    assert pids(plan) == before, "status must not hide parts that live on"
    assert up(plan) is True
    assert pids(plan) == before


def test_down_works_after_the_supervisor_was_killed(plan: StackPlan) -> None:
    up(plan)
    identities = [identify(pid) for pid in pids(plan).values()]
    entry = read_pid_file(plan.run_dir / "supervisor.pid")
    assert entry is not None
    os.kill(entry.identity.pid, signal.SIGKILL)
    while alive(entry.identity):
        time.sleep(0.01)
    assert set(down(plan.run_dir)) == {"first", "second"}
    assert not any(alive(identity) for identity in identities)


def test_a_recycled_process_id_is_never_signalled(plan: StackPlan) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as stranger:
        now = identify(stranger.pid)
        assert now is not None
        then = ProcessIdentity(pid=stranger.pid, mark=now.mark + "0")
        assert not alive(then)
        assert stop_tree(then, grace_seconds=0.1) is False
        assert stranger.poll() is None
        stranger.kill()


def test_children_of_a_killed_leader_are_stopped_before_it_starts_again(tmp_path: Path) -> None:
    # As MLflow does it: the worker, not the leader, holds the port, and outlives a killed leader.
    port = free_port()
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-m', 'http.server', sys.argv[1], "
        "'--bind', '127.0.0.1']).wait()"
    )
    spec = ProcessSpec(
        name="nested",
        argv=(sys.executable, "-c", code, str(port)),
        port=port,
        health_url=f"http://127.0.0.1:{port}/",
        log_file=tmp_path / "nested.log",
        ready_seconds=30,
    )
    plan = StackPlan(run_dir=tmp_path / "run", log_file=tmp_path / "log", processes=(spec,), poll_seconds=0.05)
    try:
        up(plan)
        os.kill(pids(plan)["nested"], signal.SIGKILL)
        wait_until_healthy(plan, restarts_of="nested", at_least=1)
        assert "Address already in use" not in spec.log_file.read_text()
    finally:
        down(plan.run_dir)


def test_a_taken_port_is_one_clear_error_and_starts_nothing(plan: StackPlan) -> None:
    port = plan.processes[1].port
    assert port is not None
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(UserError, match=rf"port {port} on 127.0.0.1, wanted by second, is taken"):
            up(plan)
    assert status(plan.run_dir).running is False
    assert pids(plan) == {}


def test_a_part_that_cannot_start_is_an_error_with_its_log_and_all_is_stopped(plan: StackPlan, tmp_path: Path) -> None:
    broken = ProcessSpec(
        name="broken",
        argv=(sys.executable, "-c", "raise SystemExit('no model here')"),
        health_url="http://127.0.0.1:9/",
        log_file=tmp_path / "broken.log",
    )
    worse = plan.model_copy(update={"processes": (*plan.processes, broken)})
    with pytest.raises(UserError, match=r"(?s)broken ended 3 times, last with exit status 1.*no model here"):
        up(worse)
    assert status(plan.run_dir).running is False
    assert pids(plan) == {}


def test_up_with_another_plan_is_refused_while_the_stack_runs(plan: StackPlan) -> None:
    up(plan)
    other = plan.model_copy(update={"processes": plan.processes[:1]})
    with pytest.raises(UserError, match="another configuration"):
        up(other)
    assert status(plan.run_dir).healthy
