"""Declare types of event fields that can be stored: text, names, JSON objects, moments.

Text is made storable where it enters: NUL and lone surrogates, which neither Postgres nor UTF-8 can hold, become
U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, JsonValue

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """Return `text` with what cannot be stored (NUL, lone surrogates) replaced by U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def _storable(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


def _storable_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_storable(key): _storable_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable_json(inner) for inner in value]
    return _storable(value)


Text = Annotated[str, BeforeValidator(_storable)]
Name = Annotated[str, BeforeValidator(_storable), Field(min_length=1, max_length=200)]
JsonObject = Annotated[dict[str, JsonValue], BeforeValidator(_storable_json)]
Moment = Annotated[AwareDatetime, AfterValidator(lambda value: value.astimezone(UTC))]
