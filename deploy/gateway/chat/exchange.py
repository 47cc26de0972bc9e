"""Carry one request to its answer: who asks, who answers, and how that was decided."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
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
        """Return the randomization unit: the user, else the session; None without either (then the request)."""
        who = self.user or (f"session\0{self.session}" if self.session else None)
        return pseudonym(who, salt) if who else None


def checked_name(value: str | None, field_name: str) -> str | None:
    """Return `value` as a name of at most 200 characters; an empty one is none.

    Raises:
        ApiError: 400, of a longer one.
    """
    if value is not None and len(value) > 200:
        raise ApiError(400, f"{field_name} has {len(value)} characters; at most 200 are taken", param=field_name)
    return value or None


def new_interaction_id() -> str:
    """Make an id for one answer, in the form OpenAI's clients know."""
    return f"chatcmpl-{uuid.uuid4().hex}"


@dataclass
class Exchange:
    """One request and who answers it."""

    request: ChatRequest
    caller: Caller
    table: RoutingTable
    interaction_id: str
    assignment: Assignment
    unit: str
    raw: dict[str, Any] | None = None
    """The body as it came, where it is passed on as it is."""
    started: float = field(default_factory=time.monotonic)
    created_at: datetime = field(default_factory=now)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"X-Ratchet-Interaction": self.interaction_id, "X-Ratchet-Version": self.assignment.version}

    @property
    def origin(self) -> dict[str, str]:
        """The same in the body, as `ratchet`."""
        return {"interaction_id": self.interaction_id, "version": self.assignment.version}
