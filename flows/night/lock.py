"""Lock a tenant's nights: one at a time, by a lock file that the system lets go of when its process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.database.connect import now
from infra.errors import UserError
from infra.processes.locks import LockHeld, try_file_lock
from infra.settings import Places


def lock_file(places: Places, tenant: str) -> Path:
    """Return the path of a tenant's lock."""
    return places.nights_dir / f"{tenant}.lock"


@contextmanager
def lock_nights(places: Places, tenant: str) -> Iterator[None]:
    """Hold the tenant's lock, so that no other night works meanwhile.

    Raises:
        UserError: one does.
    """
    note = f"process {os.getpid()}, since {now():%Y-%m-%d %H:%M:%S} UTC"
    with ExitStack() as stack:
        try:
            # Not refused at once: somebody may only be looking whether it is held.
            stack.enter_context(try_file_lock(lock_file(places, tenant), wait_seconds=1.0, note=note))
        except LockHeld as holder:
            raise UserError(
                f"a night of tenant {tenant!r} is running already ({str(holder) or 'process unknown'}); "
                "wait for it, or stop that process"
            ) from None
        yield
