"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait(what: str, found: Callable[[], T | None], seconds: float = 240.0, pause: float = 0.1) -> T:
    """The first thing `found` gives that is true.

    The bound is for what hangs: a busy machine is slow by tens of seconds, and no test is about that.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:.0f} s"
        time.sleep(pause)
