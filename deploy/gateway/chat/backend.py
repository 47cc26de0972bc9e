"""Define who answers chat requests: our own serving engines, or an endpoint that a team already runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from deploy.engines.protocol import ChatRequest
from deploy.gateway.chat.exchange import Caller, Exchange


class Backend(Protocol):
    """Routes a request, and answers it; the answer is stored before it ends."""

    def names(self) -> tuple[str, ...]:
        """List the model names that every caller may ask for."""
        ...

    def champion(self, tenant: str) -> str:
        """Return the version that answers a tenant's users now, outside of comparisons."""
        ...

    async def route(self, request: ChatRequest, caller: Caller, body: bytes) -> Exchange:
        """Decide who answers, and see that it can.

        Args:
            body: the request as it came.

        Raises:
            ApiError: 404 for an unknown model, 403 for a pinned one without the scope, 503 when nothing can answer.
        """
        ...

    async def answer(self, exchange: Exchange) -> dict[str, Any]:
        """Answer in one piece, as the body; it is stored when this returns."""
        ...

    def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Answer in server-sent events; the one that says it is finished goes out after the answer is stored."""
        ...

    async def outage(self) -> str | None:
        """Say why nobody can be answered now; None: somebody can."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
