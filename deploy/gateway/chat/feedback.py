"""`POST /v1/feedback`: what somebody says of an interaction, as an event."""

from __future__ import annotations

import json
import uuid
from typing import Any

from pydantic import ValidationError

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError
from deploy.gateway.chat.exchange import named
from feedback.events import Feedback
from feedback.store.store import Store
from feedback.store.user_salt import pseudonym
from infra.database.connect import now

KINDS = ("thumb", "rating", "edit", "preference", "reference")
ENVELOPE = ("event_id", "interaction_id", "kind", "user", "comment")


def read_feedback(body: bytes, *, key: ApiKey, user_header: str | None, store: Store, salt: str) -> Feedback:
    """The event in a request's body, as said by the holder of `key`.

    Without a user, the person the answer was given to is taken to speak; without that, the key's holder.

    Raises:
        ApiError: 400 that says what is wrong.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is a {type(value).__name__}; expected an object with interaction_id and kind")
    kind, interaction_id = value.get("kind"), value.get("interaction_id")
    if kind not in KINDS:
        raise ApiError(400, f"kind is {kind!r}; expected one of {', '.join(KINDS)}", param="kind")
    if not isinstance(interaction_id, str) or not 0 < len(interaction_id) <= 200:
        raise ApiError(400, "interaction_id: expected the id that came with the answer", param="interaction_id")
    user, event_id = value.get("user"), value.get("event_id")
    if user is not None and not isinstance(user, str):
        raise ApiError(400, "user: expected a text", param="user")
    user = user_header or named(user, "user")
    event: dict[str, Any] = {
        "event_id": f"ev-{uuid.uuid4().hex}" if event_id is None else event_id,
        "tenant": key.tenant,
        "interaction_id": interaction_id,
        "actor": _actor(user, interaction_id, key, store, salt),
        "trusted": "trusted" in key.scopes,
        "value": {"kind": kind} | {name: part for name, part in value.items() if name not in ENVELOPE},
        "comment": value.get("comment"),
        "created_at": now(),
        "source": "gateway",
    }
    try:
        return Feedback.model_validate(event, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("value", kind))
        raise ApiError(400, f"{where or 'feedback'}: {first['msg']}", param=where or None) from error


def _actor(user: str | None, interaction_id: str, key: ApiKey, store: Store, salt: str) -> str:
    if user:
        return pseudonym(user, salt)
    interaction = store.interaction(key.tenant, interaction_id)
    return interaction.user if interaction is not None and interaction.user else f"key-{key.key_id}"
