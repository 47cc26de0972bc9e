"""What commands share: the options every command has, and printing facts for people or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.config import PipelineConfig

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The pipeline's config file.", envvar="RATCHET_CONFIG", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as JSON, for programs.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Tenant; may be left out when there is one only.")]
DEFAULT_CONFIG = Path("ratchet.yaml")


def load(path: Path, *, only_look: bool = False) -> PipelineConfig:
    """The config, and its secrets in the environment when a stack was ever started for it.

    A home that an older release left open to others is closed, unless the command must change nothing.
    """
    from flows.config import load_config
    from flows.local_secrets import load_secrets
    from infra.owner_only import close_folder

    config = load_config(path)
    if not only_look and config.places.home_dir.exists():
        close_folder(config.places.home_dir)
    if (config.places.run_dir / "secrets.env").exists():
        load_secrets(config.places)
    return config


def say(text: str = "") -> None:
    """A line for people, on stdout."""
    typer.echo(text)


def note(text: str) -> None:
    """A line about what is going on, on stderr, so that stdout holds facts only."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def as_json(value: Any) -> None:
    """Facts for programs: one JSON document on stdout."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table that survives a pipe: columns padded with spaces, nothing cut."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(headers, *cells, strict=True)]
    for row in (list(headers), *cells):
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
