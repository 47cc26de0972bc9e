"""Load a pipeline's config file: read the YAML, validate it, and report every mistake with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config.checks import cross_check
from flows.config.errors import Mistake, mistakes_of
from flows.config.pipeline import DEFAULT_FILE, PipelineConfig
from flows.config.yaml_file import Positions, read_yaml
from infra.errors import ConfigError


def load_config(path: Path = DEFAULT_FILE, *, overrides: Mapping[str, Any] | None = None) -> PipelineConfig:
    """Read and check a config file. ``overrides`` maps dotted keys (``places.home``) to values that replace the file's.

    Raises:
        NotFound: no such file.
        ConfigError: every mistake there is, one line each: ``file:line: key: got ..., expected ...``.
    """
    positions = read_yaml(path)
    duplicates = [
        Mistake(key, f"given twice, on lines {first} and {second}; keep one")
        for key, first, second in positions.duplicates
    ]
    if not isinstance(positions.values, dict):
        raise ConfigError(
            f"{path}:1: got a {type(positions.values).__name__}, expected keys and values (see ratchet.yaml)"
        )
    values = _with_overrides(positions.values, overrides or {})
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise _config_error(path, positions, [*duplicates, *mistakes_of(error, PipelineConfig, values)]) from None
    config = _anchored(config, path.absolute().parent)
    mistakes = [*duplicates, *cross_check(config)]
    if mistakes:
        raise _config_error(path, positions, mistakes)
    return config


def _config_error(path: Path, positions: Positions, mistakes: list[Mistake]) -> ConfigError:
    lines = sorted({(positions.line(mistake.path), str(mistake)) for mistake in mistakes})
    return ConfigError("\n".join(f"{path}:{line}: {text}" for line, text in lines))


def _anchored(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """Relative places count from the folder of the config file, wherever the command was started."""
    home = config.places.home.expanduser()
    places = config.places.model_copy(update={"home": home if home.is_absolute() else folder / home})
    base = config.base_model
    local = folder / Path(base).expanduser()
    if base.startswith((".", "/", "~")) or local.is_dir():
        base = str(local)
    return config.model_copy(update={"places": places, "base_model": base})


def _with_overrides(values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for dotted_key, value in overrides.items():
        *parents, last = dotted_key.split(".")
        here = values = dict(values)
        for parent in parents:
            inner = here.get(parent)
            here[parent] = dict(inner) if isinstance(inner, dict) else {}
            here = here[parent]
        here[last] = value
    return values
