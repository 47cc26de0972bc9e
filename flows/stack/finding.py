"""Record the result of one check of `ratchet doctor`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from infra.settings import Config


class Finding(Config):
    """One thing that was looked at."""

    model_config = ConfigDict(serialize_by_alias=True)

    check: str = Field(serialization_alias="what")
    """What was looked at."""
    state: Literal["ok", "warning", "problem"]
    """problem: something will not work."""
    result: str = Field(serialization_alias="found")
    """What came out."""
    advice: str = ""
    """What to do about it."""
