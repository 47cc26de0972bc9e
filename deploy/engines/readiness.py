"""Wait until a serving engine answers."""

from __future__ import annotations

import time

import httpx

from infra.errors import Unavailable


def wait_for_engine(url: str | None, *, seconds: float = 120.0) -> None:
    """Wait for an engine that is just being restarted: it must not cost a night its release.

    Raises:
        Unavailable: it did not answer in time.
    """
    deadline = time.monotonic() + seconds
    while url is not None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1.0)
    raise Unavailable(f"the engine at {url} does not answer; start it (`ratchet up`), the night then goes on")
