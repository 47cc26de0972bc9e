"""One request on its way to an answer: who asks, who answers, and how that was decided."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError, ChatRequest
from deploy.gateway.routing.assign import Assignment, RoutingTable
from feedback.store.user_salt import pseudonym
from infra.database.connect import now


@dataclass(frozen=True)
class Caller:
    """Who asks, beside the request's body."""

    key: ApiKey
    user: str | None
    """The end user as the application names them; only a hash of it is kept."""
    session: str | None
    task: str | None

    def unit(self, salt: str) -> str | None:
        """What is dealt to arms: the user, else the session; None without either (then the request)."""
        who = self.user or (f"session\0{self.session}" if self.session else None)
        return pseudonym(who, salt) if who else None


def named(value: str | None, what: str) -> str | None:
    """`value` as a name of at most 200 characters; an empty one is none.

    Raises:
        ApiError: 400, of a longer one.
    """
    if value is not None and len(value) > 200:
        raise ApiError(400, f"{what} has {len(value)} characters; at most 200 are taken", param=what)
    return value or None


def new_interaction_id() -> str:
    """An id for one answer, in the form OpenAI's clients know."""
    return f"chatcmpl-{uuid.uuid4().hex}"


@dataclass
class Exchange:
    """One request and who answers it."""

    asked: ChatRequest
    caller: Caller
    table: RoutingTable
    interaction_id: str
    assignment: Assignment
    unit: str
    raw: dict[str, Any] | None = None
    """The body as it came, where it is passed on as it is."""
    started: float = field(default_factory=time.monotonic)
    created_at: Any = field(default_factory=now)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"X-Ratchet-Interaction": self.interaction_id, "X-Ratchet-Version": self.assignment.version}

    @property
    def facts(self) -> dict[str, str]:
        """The same in the body."""
        return {"interaction_id": self.interaction_id, "version": self.assignment.version}
