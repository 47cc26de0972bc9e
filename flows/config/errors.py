"""Turn what pydantic says about a config into lines for people: where, what was got, what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from flows.config.yaml_file import KeyPath


class Mistake:
    """One mistake of one key."""

    def __init__(self, path: KeyPath, message: str) -> None:
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{dotted(self.path) or '(whole file)'}: {self.message}"


def dotted(path: Iterable[str | int]) -> str:
    """``('training', 'methods', 0)`` -> ``training.methods[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def mistakes_of(error: ValidationError, model: type[BaseModel], values: Any) -> list[Mistake]:
    """List all mistakes in ``values`` that pydantic met, in the order of the config."""
    return [_mistake(dict(one), model, values) for one in error.errors()]


def _mistake(one: dict[str, Any], model: type[BaseModel], values: Any) -> Mistake:
    path = _path_in(values, one["loc"])
    kind, context = one["type"], one.get("ctx", {})
    if kind == "extra_forbidden":
        return Mistake(path, f"unknown key{nearest(str(path[-1]), known_keys(model, path[:-1]))}")
    if kind == "missing":
        return Mistake(path, "missing; this key is required")
    if kind == "value_error":
        # Raised by a validator of our own: its message already says got and expected.
        return Mistake(path, str(context.get("error", one["msg"])))
    got = f"got {_short(one['input'])}"
    if kind in ("literal_error", "enum"):
        expected = context["expected"]
        choices = [choice.strip(" '") for choice in expected.replace(" or ", ",").split(",")]
        return Mistake(path, f"{got}, expected one of {', '.join(choices)}{nearest(str(one['input']), choices)}")
    expected = one["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return Mistake(path, f"{got}, expected {expected[0].lower()}{expected[1:]}")


def _path_in(values: Any, loc: tuple[str | int, ...]) -> KeyPath:
    """The part of pydantic's location that exists in the file: tags of unions and validators are not keys."""
    path: list[str | int] = []
    here = values
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, Mapping) and (part in here or last):
            path.append(part)
            here = here.get(part)
        elif isinstance(here, list | tuple) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
        elif here is None and isinstance(part, str):
            path.append(part)
    return tuple(path)


def known_keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys that a config may have at ``path``."""
    models = [model]
    for part in path:
        following: list[type[BaseModel]] = []
        for holder in models:
            field = holder.model_fields.get(part) if isinstance(part, str) else None
            # A position of a list, or a free name of a mapping, keeps the models of the field around it.
            following.extend(_models_in(field.annotation) if field is not None else [holder])
        models = following
    return sorted({name for holder in models for name in holder.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def nearest(got: str, known: list[str]) -> str:
    """``; did you mean ...?``, or the whole list when it is short, or nothing."""
    close = difflib.get_close_matches(got, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}" if known and len(known) <= 12 else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
