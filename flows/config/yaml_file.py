"""Read one YAML file with the line of every key, and refuse what YAML itself would let pass in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from infra.errors import ConfigError, NotFound

KeyPath = tuple[str | int, ...]


class Positions:
    """The values of a YAML file, the line each stands on, and the keys that were given twice."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.duplicates: list[tuple[KeyPath, int, int]] = []
        self.values: Any = None

    def line(self, path: KeyPath) -> int:
        """Line (from 1) of the key at ``path``, or of its nearest parent that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(path: Path) -> Positions:
    """Parse a file; the values hold plain Python objects only (no tags).

    Raises:
        NotFound: there is no such file.
        ConfigError: it is not YAML, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"no config file {path}; `ratchet init FILE` writes one for a file of corrections, --config names another"
        ) from None
    except (IsADirectoryError, UnicodeDecodeError, PermissionError) as error:
        raise ConfigError(f"{path} cannot be read as a text file: {error}") from error
    positions = Positions()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _walk(node, (), positions)
            positions.values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if positions.values is None:
        positions.values = {}
    return positions


def _walk(node: yaml.Node, path: KeyPath, positions: Positions) -> None:
    positions.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            if inner in positions.lines:
                # YAML keeps the last of two equal keys and says nothing: the first setting would be lost in silence.
                positions.duplicates.append((inner, positions.lines[inner], key.start_mark.line + 1))
            positions.lines[inner] = key.start_mark.line + 1
            _walk(value, inner, positions)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), positions)
