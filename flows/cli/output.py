"""Share among commands the options every one has, and print facts for people or as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.config.pipeline import PipelineConfig

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The pipeline's config file.", envvar="RATCHET_CONFIG", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as JSON, for programs.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Tenant; may be left out when there is one only.")]
DEFAULT_CONFIG = Path("ratchet.yaml")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal acts on instead of showing it: C0 without tab and line end, DEL, C1, the two separators that end a
line, embeddings and overrides of direction; and halves of surrogate pairs, which cannot be printed."""


def load(path: Path, *, only_look: bool = False) -> PipelineConfig:
    """The config, and its secrets in the environment when a stack was ever started for it.

    A home that an older release left open to others is closed, unless the command must change nothing.
    """
    from flows.config.load import load_config
    from flows.stack.secrets_file import load_secrets
    from infra.file_permissions import close_folder

    config = load_config(path)
    if not only_look and config.places.home_dir.exists():
        close_folder(config.places.home_dir)
    if (config.places.run_dir / "secrets.env").exists():
        load_secrets(config.places)
    return config


def visible(text: str) -> str:
    r"""The text with control characters written out (`\x1b`), but for line ends and tabs.

    What users wrote is printed, too, and a terminal obeys what it reads: an escape sequence could clear the screen,
    write over the lines above, or set the title; a direction mark shows a line as another one than it is.
    """
    return _CONTROLS.sub(lambda control: control.group().encode("unicode_escape").decode(), text)


def say(text: str = "") -> None:
    """A line for people, on stdout."""
    typer.echo(visible(text))


def note(text: str) -> None:
    """A line about what is going on, on stderr, so that stdout holds facts only."""
    sys.stderr.write(visible(text) + "\n")
    sys.stderr.flush()


def as_json(value: Any) -> None:
    """Facts for programs: one JSON document on stdout."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    typer.echo(_CONTROLS.sub(lambda control: f"\\u{ord(control.group()):04x}", text))  # the same values, escaped


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table that survives a pipe: columns padded with spaces, nothing cut."""
    cells = [[visible(str(cell)).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(headers, *cells, strict=True)]
    for row in (list(headers), *cells):
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
