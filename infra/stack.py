"""Run a handful of servers on one machine, and keep them running.

``up`` starts a supervisor process (``python -m infra.stack stack.json``) that starts the parts in order, waits until each
is healthy, restarts one that dies, and writes what it knows into ``stack-state.json``. ``status`` reads that file;
``down`` stops exactly the processes that were started, known by id and start time (see infra.processes), also when the
supervisor itself was killed. Which parts there are is decided above this module.

Secrets reach the parts through the environment of the caller of ``up``, never through ``stack.json``.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Literal

from infra.artifact import atomic_write, key_of
from infra.errors import ConfigError, UserError
from infra.processes import ProcessIdentity, alive, identify, port_taken, stop_tree
from infra.settings import Config

# Nobody's software phones home from a Ratchet machine. Handed to every part.
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Progress = Callable[[str], None]


class ProcessSpec(Config):
    """One part of the stack."""

    name: str
    """Short name, unique in the stack; names its log and pid file."""
    argv: tuple[str, ...]
    """Command line. The first word is the executable."""
    env: dict[str, str] = {}
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


class StackPlan(Config):
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


class PartStatus(Config):
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


class StackStatus(Config):
    """What is known of the whole stack."""

    running: bool
    """Whether the supervisor runs."""
    healthy: bool
    """Whether the supervisor runs and every part is ready."""
    parts: tuple[PartStatus, ...] = ()
    """In start order."""


class _PidFile(Config):
    identity: ProcessIdentity
    spec_key: str


def up(plan: StackPlan, *, on_progress: Progress = lambda line: None) -> bool:
    """Start the stack and wait until every part is ready. False when it was up already.

    Raises:
        UserError: a port is taken, another plan is running in the same folder, or a part did not become ready (the
            message holds the end of its log). In the last case everything is stopped again.
    """
    names = [spec.name for spec in plan.processes]
    assert len(set(names)) == len(names), f"part names are not unique: {names}"
    plan.run_dir.mkdir(parents=True, exist_ok=True)
    supervisor = _supervisor(plan.run_dir)
    started = supervisor is None
    if supervisor is None:
        _check_ports(plan)
        supervisor = _start_supervisor(plan)
    elif (plan.run_dir / "stack.json").read_text() != plan.model_dump_json(indent=2):
        raise UserError(
            f"a stack with another configuration runs in {plan.run_dir}; stop it first (`ratchet down`), then start again"
        )
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
    stopped: list[str] = []
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
        entry = _read_pid(path)
        if entry is not None:
            stop_tree(entry.identity, grace_seconds=10.0)
        path.unlink(missing_ok=True)
    stopped.extend(running)
    (run_dir / "stack-state.json").unlink(missing_ok=True)
    return stopped


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
    entry = _read_pid(run_dir / "supervisor.pid")
    return entry.identity if entry is not None and alive(entry.identity) else None


def _read_pid(path: Path) -> _PidFile | None:
    try:
        return _PidFile.model_validate_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_running(path: Path) -> bool:
    entry = _read_pid(path)
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
    with plan.log_file.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "infra.stack", str(plan_file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    identity = identify(child.pid)
    if identity is None:
        raise UserError(f"the stack's supervisor ended at once; its log is {plan.log_file}:\n{_tail(plan.log_file)}")
    return identity


def _wait_ready(plan: StackPlan, supervisor: ProcessIdentity, on_progress: Progress) -> None:
    started = time.monotonic()
    limits = {spec.name: spec for spec in plan.processes}
    told: dict[str, str] = {}
    since: dict[str, float] = {}
    while True:
        state = status(plan.run_dir)
        for part in state.parts:
            if told.get(part.name) != part.state:
                told[part.name] = part.state
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


# --- the supervisor ------------------------------------------------------------------------------------------------


class _Part:
    """One part as the supervisor sees it: at most one process, its own child or one adopted from a killed supervisor."""

    def __init__(self, spec: ProcessSpec, run_dir: Path) -> None:
        self.spec = spec
        self.pid_file = run_dir / f"{spec.name}.pid"
        self.spec_key = key_of(spec.model_dump(mode="json"))
        self.child: subprocess.Popen[bytes] | None = None
        self.identity: ProcessIdentity | None = None
        self.state: PartState = "waiting"
        self.restarts = 0
        self.last_exit: str | None = None
        self.started_at = 0.0
        self.start_again_at = 0.0
        self.pause = 0.5
        self.checked_at = 0.0

    def adopt_or_stop_leftover(self) -> None:
        entry = _read_pid(self.pid_file)
        if entry is None or not alive(entry.identity):
            return
        if entry.spec_key == self.spec_key:
            self.identity, self.state, self.started_at = entry.identity, "starting", time.monotonic()
            print(f"adopted {self.spec.name}, process {entry.identity.pid}", flush=True)
        else:
            stop_tree(entry.identity, grace_seconds=self.spec.stop_seconds)

    def start(self) -> None:
        spec = self.spec
        spec.log_file.parent.mkdir(parents=True, exist_ok=True)
        if spec.ready_file is not None:
            spec.ready_file.unlink(missing_ok=True)
        _rotate(spec.log_file)
        with spec.log_file.open("ab") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} start: {' '.join(spec.argv)}\n".encode())
            log.flush()
            self.child = subprocess.Popen(
                spec.argv,
                env={**os.environ, **TELEMETRY_OFF, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.identity = identify(self.child.pid)
        if self.identity is not None:
            atomic_write(self.pid_file, _PidFile(identity=self.identity, spec_key=self.spec_key).model_dump_json())
        self.state, self.started_at, self.checked_at = "starting", time.monotonic(), 0.0
        print(f"started {spec.name}, process {self.child.pid}", flush=True)

    def reap(self) -> None:
        if self.child is not None:
            self.child.poll()

    def look(self, check_seconds: float) -> None:
        """Advance this part by one step: notice its death, restart it after a pause, ask for its health."""
        now = time.monotonic()
        if self.state == "restarting":
            if now >= self.start_again_at:
                self.start()
            return
        self.reap()
        if not alive(self.identity):
            if self.identity is not None or self.child is not None:
                self._died(now)
            return
        if self.state == "ready" and now - self.checked_at < check_seconds:
            return
        self.checked_at = now
        if self._answers():
            self.state = "ready"
            if now - self.started_at > 60:
                self.pause = 0.5
        elif self.state == "ready":
            # Reported, not restarted: on a busy machine a slow server is more use than one that starts over.
            self.state = "not answering"

    def stop(self) -> None:
        if self.identity is not None:
            stop_tree(self.identity, grace_seconds=self.spec.stop_seconds, on_wait=self.reap)
        self.pid_file.unlink(missing_ok=True)
        self.state = "stopped"

    def report(self) -> PartStatus:
        return PartStatus(
            name=self.spec.name,
            state=self.state,
            pid=self.identity.pid
            if self.identity is not None and self.state not in ("restarting", "stopped")
            else None,
            url=self.spec.health_url,
            log_file=self.spec.log_file,
            restarts=self.restarts,
            last_exit=self.last_exit,
        )

    def _died(self, now: float) -> None:
        code = self.child.returncode if self.child is not None else None
        self.last_exit = f"with signal {-code}" if code is not None and code < 0 else f"with exit status {code}"
        print(f"{self.spec.name} ended {self.last_exit}; starting it again in {self.pause:.1f} s", flush=True)
        if self.identity is not None:
            stop_tree(self.identity, grace_seconds=1.0)
        self.pid_file.unlink(missing_ok=True)
        self.restarts += 1
        self.child, self.identity = None, None
        self.state, self.start_again_at = "restarting", now + self.pause
        self.pause = min(self.pause * 2, 60.0)

    def _answers(self) -> bool:
        if self.spec.health_url is not None:
            try:
                with urllib.request.urlopen(self.spec.health_url, timeout=5) as response:
                    return bool(200 <= response.status < 300)
            except (urllib.error.URLError, OSError, ValueError):
                return False
        return self.spec.ready_file is None or self.spec.ready_file.exists()


def _rotate(log: Path, limit: int = 50_000_000) -> None:
    if log.exists() and log.stat().st_size > limit:
        log.replace(log.with_name(log.name + ".1"))


def supervise(plan: StackPlan) -> None:
    """Hold the parts until SIGTERM or SIGINT, then stop them in reverse order. One supervisor per folder."""
    lock = (plan.run_dir / "stack.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another supervisor already runs in {plan.run_dir}") from None
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    me = identify(os.getpid())
    assert me is not None
    atomic_write(plan.run_dir / "supervisor.pid", _PidFile(identity=me, spec_key="").model_dump_json())
    parts = [_Part(spec, plan.run_dir) for spec in plan.processes]
    by_name = {part.spec.name: part for part in parts}
    for part in parts:
        part.adopt_or_stop_leftover()
    written = ""
    while not ending:
        for part in parts:
            if part.state == "waiting":
                if all(by_name[name].state == "ready" for name in part.spec.after):
                    part.start()
            else:
                part.look(plan.check_seconds)
        written = _write_state(plan, parts, written)
        time.sleep(plan.poll_seconds)
    for part in reversed(parts):
        part.stop()
    _write_state(plan, parts, written)
    (plan.run_dir / "supervisor.pid").unlink(missing_ok=True)


def _write_state(plan: StackPlan, parts: list[_Part], written: str) -> str:
    reports = tuple(part.report() for part in parts)
    healthy = all(report.state == "ready" for report in reports)
    text = StackStatus(running=True, healthy=healthy, parts=reports).model_dump_json()
    if text != written:
        atomic_write(plan.run_dir / "stack-state.json", text)
    return text


def main(argv: list[str]) -> int:
    """``python -m infra.stack stack.json``"""
    if len(argv) != 1:
        raise ConfigError(f"expected one argument, a stack.json; got {json.dumps(argv)}")
    supervise(StackPlan.model_validate_json(Path(argv[0]).read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
