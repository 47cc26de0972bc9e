"""Hold lock files: advisory locks (flock) that the kernel drops when their holder dies.

A lock file stays behind on purpose: removing one lets two holders in at once.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import RatchetError

_POLL_SECONDS = 0.05


class LockHeld(RatchetError):
    """Another process holds a lock file; its text is what that process noted there, perhaps nothing."""


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def try_file_lock(path: Path, *, shared: bool = False, wait_seconds: float = 0.0, note: str = "") -> Iterator[None]:
    """Hold the lock file `path` if nobody else does.

    Args:
        shared: only look whether it is held: others that look may do so at once.
        wait_seconds: how long to go on trying.
        note: who holds it, for others to read; needs a lock that is not shared.

    Raises:
        LockHeld: somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = time.monotonic() + wait_seconds
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, operation)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise LockHeld(file.read().strip()) from None
                time.sleep(_POLL_SECONDS)
        if note:
            file.truncate(0)
            file.write(note)
            file.flush()
        yield
