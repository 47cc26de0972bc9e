"""Make a feedback event of what somebody says of an interaction: `POST /v1/feedback`."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema

from deploy.api_keys import ApiKey
from deploy.engines.protocol import ApiError
from deploy.gateway.chat.exchange import checked_name
from feedback.events import Edit, Feedback, Preference, Rating, Reference, Thumb, Value
from feedback.field_types import Name, Text
from feedback.store.store import Store
from feedback.store.user_salt import pseudonym
from infra.database.connect import now

_USER = {"anyOf": [{"type": "string", "maxLength": 200}, {"type": "null"}]}
# At most its scale: a schema can say that only of the usual scale.
_SCORE = {"type": "number", "minimum": 0, "maximum": 5}


class _Envelope(BaseModel):
    """What every kind of feedback has."""

    model_config = ConfigDict(extra="forbid")
    interaction_id: Annotated[str, Field(min_length=1, max_length=200)]
    event_id: Name | None = None
    user: Annotated[str | None, WithJsonSchema(_USER)] = None
    comment: Text | None = None


class ThumbRequest(Thumb, _Envelope):
    """Up or down."""

    kind: Literal["thumb"]


class RatingRequest(Rating, _Envelope):
    """A score on a scale."""

    kind: Literal["rating"]
    score: Annotated[float, Field(ge=0, allow_inf_nan=False), WithJsonSchema(_SCORE)]
    scale: Annotated[
        float, Field(gt=1, allow_inf_nan=False), WithJsonSchema({"type": "number", "minimum": 5, "default": 5})
    ] = 5


class EditRequest(Edit, _Envelope):
    """The answer as it should have been."""

    kind: Literal["edit"]


class PreferenceRequest(Preference, _Envelope):
    """This over that."""

    kind: Literal["preference"]


class ReferenceRequest(Reference, _Envelope):
    """Ground truth for the prompt."""

    kind: Literal["reference"]


FeedbackRequest = Annotated[
    ThumbRequest | RatingRequest | EditRequest | PreferenceRequest | ReferenceRequest,
    Field(discriminator="kind"),
]
REQUEST: TypeAdapter[FeedbackRequest] = TypeAdapter(FeedbackRequest)
_PAYLOADS: dict[str, type[Value]] = {
    "thumb": Thumb,
    "rating": Rating,
    "edit": Edit,
    "preference": Preference,
    "reference": Reference,
}


def read_feedback(body: bytes, *, key: ApiKey, user_header: str | None, store: Store, salt: str) -> Feedback:
    """Parse the event in a request's body, as said by the holder of `key`.

    Without a user, the person the answer was given to is taken to speak; without that, the key's holder.

    Raises:
        ApiError: 400 that says what is wrong.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from error
    try:
        request = REQUEST.validate_python(value)
    except ValidationError as error:
        raise _refused(error) from error
    user = user_header or checked_name(request.user, "user")
    payload = _PAYLOADS[request.kind]
    return Feedback(
        event_id=request.event_id or f"ev-{uuid.uuid4().hex}",
        tenant=key.tenant,
        interaction_id=request.interaction_id,
        actor=_actor(user, request.interaction_id, key, store, salt),
        trusted="trusted" in key.scopes,
        kind=request.kind,
        value=payload.model_validate(request.model_dump(include=set(payload.model_fields))),
        comment=request.comment,
        created_at=now(),
        source="gateway",
    )


def _refused(error: ValidationError) -> ApiError:
    first = error.errors()[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = first["input"].get("kind")
        return ApiError(400, f"kind is {kind!r}; expected one of {', '.join(_PAYLOADS)}", param="kind")
    where = ".".join(str(part) for part in first["loc"] if part not in _PAYLOADS)
    return ApiError(400, f"{where or 'feedback'}: {first['msg']}", param=where or None)


def _actor(user: str | None, interaction_id: str, key: ApiKey, store: Store, salt: str) -> str:
    if user:
        return pseudonym(user, salt)
    interaction = store.interaction(key.tenant, interaction_id)
    return interaction.user if interaction is not None and interaction.user else f"key-{key.key_id}"
