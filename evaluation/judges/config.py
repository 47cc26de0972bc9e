"""Configure a judge: its name, and the options that the judge of that name declares beside its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from evaluation.judges import JUDGES
from infra.settings import Config

_SHARED: Mapping[str, str | int | float | bool | None] = {
    "base_url": None,
    "model": None,
    "api_key_env": "RATCHET_JUDGE_KEY",
    "rubric": "Prefer the answer that is more correct and more helpful. Ignore length.",
    "max_calls": 2000,
    "timeout_seconds": 60.0,
    "retries": 2,
    "length_control": True,
    "price_per_million_tokens": None,
}
"""Options that every judge's config held before each judge had its own. All judges take them still, and write them
down: a config is part of an evaluation's key, and the same one must give the same key."""


class JudgeConfig(Config):
    """One judge of win-rates."""

    model_config = ConfigDict(polymorphic_serialization=True)

    name: str = "reference"
    """Registry name: reference (offline, compares with the reference), openai (any OpenAI-compatible server), reward
    (the reward model that a recipe of the night trained; never for a challenger that was optimised against it)."""

    @model_validator(mode="wrap")
    @classmethod
    def _by_the_judge_s_own_model(cls, data: Any, handler: ModelWrapValidatorHandler[JudgeConfig]) -> JudgeConfig:
        if not isinstance(data, Mapping):
            return handler(data)
        own = own_config(str(data.get("name", "reference"))) if cls is JudgeConfig else cls
        if own is not cls:
            return own.model_validate(data)
        return handler({key: value for key, value in data.items() if key in cls.model_fields or key not in _SHARED})

    @model_serializer(mode="wrap")
    def _with_shared_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, **_SHARED, **handler(self)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The options of all judges, so that one table documents them."""
        schema = handler(core_schema)
        if cls is JudgeConfig:
            properties = handler.resolve_ref_schema(schema)["properties"]
            for own in map(own_config, sorted(JUDGES)):
                if own is not cls:
                    properties |= own.model_json_schema()["properties"] | properties
        return schema


def own_config(name: str) -> type[JudgeConfig]:
    """Look up the config model of the judge called `name`; the plain one where there is no such judge."""
    return JUDGES[name].CONFIG if name in JUDGES else JudgeConfig
