"""Start, stop and inspect the local stack: a handful of servers on one machine, kept running.

``up`` starts a supervisor process (infra.processes.supervisor) that starts the parts in order, waits until each is
healthy, restarts one that dies, and writes what it knows into ``stack-state.json``. ``status`` reads that file;
``down`` stops exactly the processes that were started, known by id and start time (see infra.processes.identity), also
when the supervisor itself was killed. Which parts there are is decided above this module.

Secrets reach the parts through the environment of the caller of ``up``, never through ``stack.json``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from infra.artifact import atomic_write
from infra.errors import UserError
from infra.processes.identity import ProcessIdentity, alive, identify, port_taken, stop_tree
from infra.stored_model import Stored

Progress = Callable[[str], None]


class ProcessSpec(Stored):
    """One part of the stack."""

    name: str
    """Short name, unique in the stack; names its log and pid file."""
    argv: tuple[str, ...]
    """Command line. The first word is the executable."""
    env: Mapping[str, str] = {}
    """Added to the environment of the supervisor. Never a secret: it is written to disk."""
    host: str = "127.0.0.1"
    """Address the part listens on."""
    port: int | None = None
    """Port the part listens on; checked to be free before it is started."""
    health_url: str | None = None
    """Answers 2xx when the part is ready. Without one, the part is ready when ``ready_file`` exists, or at once."""
    ready_file: Path | None = None
    """Written by the part when it is ready; removed before each start."""
    log_file: Path
    """Output of the part, appended."""
    ready_seconds: float = 120.0
    """How long the first start may take before ``up`` gives up."""
    stop_seconds: float = 10.0
    """How long the part may take to end before it is killed."""
    after: tuple[str, ...] = ()
    """Parts that must be ready before this one is started."""


class StackPlan(Stored):
    """All parts of one stack, in start order, and the folder where the supervisor keeps its state."""

    run_dir: Path
    """Folder of pid files, the lock and the state; one stack per folder."""
    log_file: Path
    """Output of the supervisor itself."""
    processes: tuple[ProcessSpec, ...]
    """Parts in start order."""
    poll_seconds: float = 0.5
    """How often the supervisor looks after its parts."""
    check_seconds: float = 10.0
    """How often a part that is ready is asked for its health again."""


PartState = Literal["waiting", "starting", "ready", "not answering", "restarting", "stopped"]


class PartStatus(Stored):
    """What is known of one part."""

    name: str
    """Name of the part."""
    state: PartState
    """``restarting`` means that it died and starts again after a pause."""
    pid: int | None = None
    """Process id, when it runs."""
    url: str | None = None
    """Its health address."""
    log_file: Path
    """Where its output goes."""
    restarts: int = 0
    """How often it was restarted since the stack came up."""
    last_exit: str | None = None
    """How its last process ended."""


class StackStatus(Stored):
    """What is known of the whole stack."""

    running: bool
    """Whether the supervisor runs."""
    healthy: bool
    """Whether the supervisor runs and every part is ready."""
    parts: tuple[PartStatus, ...] = ()
    """In start order."""


class PidFile(Stored):
    """Who runs as one part."""

    identity: ProcessIdentity
    """The process."""
    spec_key: str
    """Key of the specification it was started by."""


def up(plan: StackPlan, *, on_progress: Progress = lambda line: None) -> bool:
    """Start the stack and wait until every part is ready. False when it was up already.

    Raises:
        UserError: a port is taken, another plan is running in the same folder, or a part did not become ready (the
            message holds the end of its log). In the last case everything is stopped again.
    """
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    supervisor = _supervisor(plan.run_dir)
    started = supervisor is None
    if supervisor is None:
        _check_ports(plan)
        supervisor = _start_supervisor(plan)
    elif (plan.run_dir / "stack.json").read_text() != plan.model_dump_json(indent=2):
        raise UserError(f"a stack with another configuration runs in {plan.run_dir}; stop it first (`ratchet down`)")
    try:
        _wait_ready(plan, supervisor, on_progress)
    except BaseException:
        # All or nothing: half a stack would only make the next error harder to read.
        if started:
            down(plan.run_dir)
        raise
    return started


def down(run_dir: Path, *, on_progress: Progress = lambda line: None) -> list[str]:
    """Stop everything that ``up`` started in this folder; the names of what was stopped."""
    supervisor = _supervisor(run_dir)
    seconds = 10.0 + sum(spec.stop_seconds for spec in _plan(run_dir).processes) if supervisor else 0.0
    running = [path.stem for path in sorted(run_dir.glob("*.pid")) if _is_running(path)]
    if supervisor is not None:
        on_progress("stopping " + ", ".join(name for name in running if name != "supervisor"))
        with suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while alive(supervisor) and time.monotonic() < deadline:
            time.sleep(0.05)
    # What is left belonged to a supervisor that was killed, or did not end in time.
    for path in sorted(run_dir.glob("*.pid")):
        entry = read_pid_file(path)
        if entry is not None:
            stop_tree(entry.identity, grace_seconds=10.0)
        path.unlink(missing_ok=True)
    (run_dir / "stack-state.json").unlink(missing_ok=True)
    return running


def status(run_dir: Path) -> StackStatus:
    """What runs in this folder now. Never raises when nothing does."""
    supervisor = _supervisor(run_dir)
    try:
        state = StackStatus.model_validate_json((run_dir / "stack-state.json").read_text())
    except (FileNotFoundError, ValueError):
        return StackStatus(running=supervisor is not None, healthy=False)
    if supervisor is None:
        # Parts may live on after a killed supervisor: say so instead of hiding them.
        parts = tuple(
            part
            if _is_running(run_dir / f"{part.name}.pid")
            else part.model_copy(update={"state": "stopped", "pid": None})
            for part in state.parts
        )
        return StackStatus(running=False, healthy=False, parts=parts)
    return state


# --- the caller's side ---------------------------------------------------------------------------------------------


def _plan(run_dir: Path) -> StackPlan:
    return StackPlan.model_validate_json((run_dir / "stack.json").read_text())


def _supervisor(run_dir: Path) -> ProcessIdentity | None:
    entry = read_pid_file(run_dir / "supervisor.pid")
    return entry.identity if entry is not None and alive(entry.identity) else None


def read_pid_file(path: Path) -> PidFile | None:
    try:
        return PidFile.model_validate_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_running(path: Path) -> bool:
    entry = read_pid_file(path)
    return entry is not None and alive(entry.identity)


def _check_ports(plan: StackPlan) -> None:
    for spec in plan.processes:
        ours = _is_running(plan.run_dir / f"{spec.name}.pid")
        if spec.port is not None and not ours and port_taken(spec.host, spec.port):
            raise UserError(
                f"port {spec.port} on {spec.host}, wanted by {spec.name}, is taken by another program; "
                "stop that program or give another port in the config's `places`"
            )


def _start_supervisor(plan: StackPlan) -> ProcessIdentity:
    plan_file = plan.run_dir / "stack.json"
    (plan.run_dir / "stack-state.json").unlink(missing_ok=True)
    atomic_write(plan_file, plan.model_dump_json(indent=2))
    plan.log_file.parent.mkdir(parents=True, exist_ok=True)
    with plan.log_file.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "infra.processes.supervisor", str(plan_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    identity = identify(child.pid)
    if identity is None:
        raise UserError(f"the stack's supervisor ended at once; its log is {plan.log_file}:\n{_tail(plan.log_file)}")
    return identity


def _wait_ready(plan: StackPlan, supervisor: ProcessIdentity, on_progress: Progress) -> None:
    started = time.monotonic()
    limits = {spec.name: spec for spec in plan.processes}
    reported: dict[str, str] = {}
    since: dict[str, float] = {}
    while True:
        state = status(plan.run_dir)
        for part in state.parts:
            if reported.get(part.name) != part.state:
                reported[part.name] = part.state
                since.setdefault(part.name, time.monotonic())
                if part.state == "starting":
                    since[part.name] = time.monotonic()
                on_progress(f"{part.name}: {part.state} ({time.monotonic() - started:.0f} s)")
            spec = limits[part.name]
            waited = time.monotonic() - since[part.name]
            gave_up = part.state in ("starting", "not answering") and waited > spec.ready_seconds
            if gave_up or part.restarts >= 3:
                why = (
                    f"ended {part.restarts} times, last {part.last_exit}"
                    if part.restarts >= 3
                    else (f"was not ready after {spec.ready_seconds:.0f} s")
                )
                raise UserError(f"{part.name} {why}; the end of its log {part.log_file}:\n{_tail(part.log_file)}")
        if state.healthy and len(state.parts) == len(plan.processes):
            return
        if not alive(supervisor):
            raise UserError(
                f"the stack's supervisor ended; the end of its log {plan.log_file}:\n{_tail(plan.log_file)}"
            )
        time.sleep(0.1)


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join("    " + line for line in path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "    (no log)"
