"""What users have written down elsewhere (commands, keys, names, plug-ins' imports) changes only when that is meant.

`tests/surface.txt` lists it, a line each. Whoever adds or removes something edits that file too:

    python -m tests.test_surface > tests/surface.txt
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from flows.cli.app import app
from flows.config.pipeline import PipelineConfig
from tools.reference.extensions import registries

FILE = Path(__file__).with_name("surface.txt")


def commands(command: Any, name: str = "ratchet") -> Iterator[str]:
    """Every command with its arguments and options."""
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name} {word}")
        return
    for parameter in command.params:
        words = (*parameter.opts, *parameter.secondary_opts)
        yield f"command: {name} {'/'.join(words)}"


def keys(schema: dict[str, Any], found: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every key of the config file, dotted; `*` stands for names that users choose."""
    if "$ref" in schema:
        schema = found[schema["$ref"].rsplit("/", 1)[1]]
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from keys(part, found, path)
    if isinstance(schema.get("items"), dict):
        yield from keys(schema["items"], found, f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys(schema["additionalProperties"], found, f"{path}.*")
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        yield f"key: {here}"
        yield from keys(inner, found, here)


def registered() -> Iterator[str]:
    """Every registry's own names, and what a plug-in may import."""
    for name, registry in registries().items():
        yield from (f"{registry.kind}: {entry}" for entry in registry.built_in)
        words = getattr(importlib.import_module(name), "__all__", ())
        yield from (f"plug-in: {registry.group} imports {name}.{word}" for word in words)


def surface() -> list[str]:
    """All of it, sorted."""
    schema = PipelineConfig.model_json_schema()
    lines = {*commands(typer.main.get_command(app)), *keys(schema, schema["$defs"]), *registered()}
    return sorted(lines)


def test_the_surface_is_the_one_that_is_written_down() -> None:
    assert surface() == FILE.read_text().splitlines(), (
        "if this is meant: python -m tests.test_surface > tests/surface.txt"
    )


if __name__ == "__main__":
    sys.stdout.write("\n".join(surface()) + "\n")
