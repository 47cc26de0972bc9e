"""Identify a process, and stop exactly that one.

A process id alone says little: the system gives it to somebody else later. So a process is remembered by its id and a
*mark* (the boot it lives in and the tick it started at), and nothing here signals a process whose mark has changed.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import ConfigDict

from infra.settings import Config


class ProcessIdentity(Config):
    """One process of this machine, recognisable after its id was recycled."""

    # Two are the same process when they are equal: what another release wrote besides must not make them differ.
    model_config = ConfigDict(extra="ignore")

    pid: int
    """Process id; also the id of the process group and session the process leads."""
    mark: str
    """Boot id and start time in clock ticks; differs for every process that ever had this id."""


def identify(pid: int) -> ProcessIdentity | None:
    """Identify a running process; None when there is no such process (a zombie counts as gone)."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The command name, in parentheses, may itself hold spaces and parentheses: read from the last one on.
        fields = stat.rpartition(")")[2].split()
        state, start_ticks = fields[0], fields[19]
        return None if state in "ZX" else ProcessIdentity(pid=pid, mark=f"{boot}:{start_ticks}")
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(pid=pid, mark=f"{process.create_time():.2f}")
    except psutil.NoSuchProcess:
        return None


def alive(identity: ProcessIdentity | None) -> bool:
    """Whether that very process still runs."""
    return identity is not None and identify(identity.pid) == identity


def stop_tree(identity: ProcessIdentity, *, grace_seconds: float, on_wait: Callable[[], None] = lambda: None) -> bool:
    """Stop a process that leads a session, and everything it started: SIGTERM, then SIGKILL after ``grace_seconds``.

    When the leader is gone already, what it left behind in its session is stopped. ``on_wait`` is called while waiting,
    so that a parent can reap its child. False when there was nothing to stop. A recycled id is never signalled.
    """
    now_there = identify(identity.pid)
    if now_there is not None and now_there != identity:
        return False
    # Remembered by mark before the first signal: servers start children in sessions of their own.
    members = [*_descendants(identity.pid), *_session(identity.pid), identity]
    members = [member for member in members if alive(member)]
    for member in members:
        _signal(member.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    killed = False
    while any(alive(member) for member in members):
        on_wait()
        if not killed and time.monotonic() > deadline:
            killed = True
            for member in members:
                if alive(member):
                    _signal(member.pid, signal.SIGKILL)
        elif time.monotonic() > deadline + 10.0:
            break
        time.sleep(0.05)
    on_wait()
    return bool(members)


def port_taken(host: str, port: int) -> bool:
    """Whether something on this machine already listens on (or reserves) the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do it: sockets that linger after their process ended do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


def _descendants(pid: int) -> list[ProcessIdentity]:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [identity for child in children if (identity := identify(child.pid)) is not None]


def _session(leader: int) -> list[ProcessIdentity]:
    # The system does not give out an id again while a session of that number lives, so these are the leader's own.
    members = []
    for pid in psutil.pids():
        try:
            if pid != leader and os.getsid(pid) == leader and (member := identify(pid)) is not None:
                members.append(member)
        except (ProcessLookupError, PermissionError):
            continue
    return members


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
