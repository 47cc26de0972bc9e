"""A Prefect server's API as tests ask it."""

from __future__ import annotations

from typing import Any

import httpx

from infra.sign_in import prefect_headers
from tests.waiting import wait


def ask_prefect(api: str, method: str, path: str, **request: Any) -> Any:
    """The JSON of an answer below 400, or None of an empty one.

    503 is how Prefect says "ask again" (its database was locked for a moment); its own client asks again too.
    """

    signed = {**request, "headers": {**prefect_headers(), **request.get("headers", {})}}

    def answered() -> httpx.Response | None:
        found = httpx.request(method, f"{api}{path}", timeout=60, trust_env=False, **signed)
        return None if found.status_code == 503 else found

    answer = wait(f"an answer other than 503 to {method} {path}", answered, pause=0.5).raise_for_status()
    return answer.json() if answer.content else None
