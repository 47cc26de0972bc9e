"""Supervise the parts of a stack: start, watch, restart after a pause, stop in reverse order.

    python -m infra.processes.supervisor stack.json

Started by infra.processes.stack.up. When it is killed its parts live on, and the next supervisor adopts those whose
specification is unchanged: a gateway need not fall because its keeper did.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import httpx

from infra.artifact import atomic_write, key_of
from infra.errors import RatchetError, UserError
from infra.processes.identity import ProcessIdentity, alive, identify, stop_tree
from infra.processes.job_file import job_main
from infra.processes.locks import LockHeld, try_file_lock
from infra.processes.stack import PartState, PartStatus, PidFile, ProcessSpec, StackPlan, StackStatus, read_pid_file

# Turns off the telemetry of the servers and libraries; handed to every part.
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

log = logging.getLogger(__name__)


class _Part:
    """One part: at most one process at a time, our own child or one adopted from a supervisor that was killed."""

    def __init__(self, spec: ProcessSpec, run_dir: Path, client: httpx.Client) -> None:
        self.spec = spec
        self.client = client
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
        entry = read_pid_file(self.pid_file)
        if entry is None or not alive(entry.identity):
            return
        if entry.spec_key == self.spec_key:
            self.identity, self.state, self.started_at = entry.identity, "starting", time.monotonic()
            log.info(f"adopted {self.spec.name}, process {entry.identity.pid}")
        else:
            stop_tree(entry.identity, grace_seconds=self.spec.stop_seconds)

    def start(self) -> None:
        spec = self.spec
        spec.log_file.parent.mkdir(parents=True, exist_ok=True)
        if spec.ready_file is not None:
            spec.ready_file.unlink(missing_ok=True)
        _rotate(spec.log_file)
        with spec.log_file.open("ab") as output:
            output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} start: {' '.join(spec.argv)}\n".encode())
            output.flush()
            self.child = subprocess.Popen(
                spec.argv,
                env={**os.environ, **TELEMETRY_OFF, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.identity = identify(self.child.pid)
        if self.identity is not None:
            atomic_write(self.pid_file, PidFile(identity=self.identity, spec_key=self.spec_key).model_dump_json())
        self.state, self.started_at, self.checked_at = "starting", time.monotonic(), 0.0
        log.info(f"started {spec.name}, process {self.child.pid}")

    def reap(self) -> None:
        if self.child is not None:
            self.child.poll()

    def advance(self, check_seconds: float) -> None:
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
        log.info(f"{self.spec.name} ended {self.last_exit}; starting it again in {self.pause:.1f} s")
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
                return self.client.get(self.spec.health_url).is_success
            except httpx.HTTPError:
                return False
        return self.spec.ready_file is None or self.spec.ready_file.exists()


def _rotate(file: Path, limit: int = 50_000_000) -> None:
    if file.exists() and file.stat().st_size > limit:
        file.replace(file.with_name(file.name + ".1"))


def supervise(plan: StackPlan) -> None:
    """Hold the parts until SIGTERM or SIGINT, then stop them in reverse order. One supervisor per folder."""
    try:
        with try_file_lock(plan.run_dir / "stack.lock"):
            _supervise(plan)
    except LockHeld:
        raise UserError(f"another supervisor already runs in {plan.run_dir}") from None


def _supervise(plan: StackPlan) -> None:
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    me = identify(os.getpid())
    if me is None:
        raise RatchetError("cannot read this process's own start time; is /proc mounted?")
    atomic_write(plan.run_dir / "supervisor.pid", PidFile(identity=me, spec_key="").model_dump_json())
    # One for all: making a client costs 50 ms of processor time, and it is asked all day.
    client = httpx.Client(timeout=5.0, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
    parts = [_Part(spec, plan.run_dir, client) for spec in plan.processes]
    by_name = {part.spec.name: part for part in parts}
    for path in plan.run_dir.glob("*.pid"):
        entry = read_pid_file(path)
        if entry is not None and path.stem not in by_name and path.stem != "supervisor":
            stop_tree(entry.identity, grace_seconds=10.0)
            path.unlink(missing_ok=True)
    for part in parts:
        part.adopt_or_stop_leftover()
    written = ""
    while not ending:
        for part in parts:
            if part.state == "waiting":
                if all(by_name[name].state == "ready" for name in part.spec.after):
                    part.start()
            else:
                part.advance(plan.check_seconds)
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
    """``python -m infra.processes.supervisor stack.json``"""
    return job_main("supervisor", argv, StackPlan, supervise)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
