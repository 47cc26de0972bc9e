"""Lock a tenant's nights: one at a time, by an advisory file lock that the system lets go of when its process dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infra.database.connect import now
from infra.errors import UserError
from infra.settings import Places


def lock_file(places: Places, tenant: str) -> Path:
    """Return the path of a tenant's lock."""
    return places.nights_dir / f"{tenant}.lock"


@contextmanager
def nights_held_off(places: Places, tenant: str) -> Iterator[None]:
    """Hold the tenant's lock so that no night works meanwhile.

    Raises:
        UserError: one does.
    """
    with locked(lock_file(places, tenant), tenant):
        yield


@contextmanager
def looked_at(path: Path) -> Iterator[bool]:
    """Keep others from taking a lock, where nobody holds it; yields whether that is so."""
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free


@contextmanager
def locked(path: Path, tenant: str) -> Iterator[None]:
    """Hold a tenant's lock, with this process's name in it.

    Raises:
        UserError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        for tries in range(20):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if tries == 19:
                    raise UserError(
                        f"a night of tenant {tenant!r} is running already ({_holder(lock)}); "
                        "wait for it, or stop that process"
                    ) from None
                time.sleep(0.05)  # somebody may only be looking whether it is held
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {now():%Y-%m-%d %H:%M:%S} UTC")
        lock.flush()
        yield


def _holder(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip() or "process unknown"
