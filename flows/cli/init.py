"""`ratchet init`: write a first config for a file of corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, say


def init(
    file: Annotated[Path, typer.Argument(help="JSONL or CSV with one correction a row.")],
    config: ConfigOption = DEFAULT_CONFIG,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="Meaning=column, such as prompt=question; may be repeated.")
    ] = None,
    pipeline: Annotated[
        str, typer.Option(help="Name of the pipeline: the model name that clients ask for.")
    ] = "support",
    base_model: Annotated[str | None, typer.Option(help="Folder or name of the base model.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the config file that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a first config for a file of corrections. Nothing else is written, and nothing is started."""
    from flows.stack.first_config import first_config
    from infra.artifact import atomic_write
    from infra.errors import UserError

    pairs = [pair.partition("=") for pair in map_ or ()]
    if wrong := [pair[0] for pair in pairs if not pair[1] or not pair[2]]:
        raise UserError(f"--map: got {wrong[0]!r}, expected meaning=column, such as prompt=question")
    if config.exists() and not force and not _is_the_example(config):
        raise UserError(f"{config} is there already; --force replaces it, --config names another file")
    first = first_config(
        file, pipeline=pipeline, named={name: column for name, _, column in pairs}, base_model=base_model
    )
    atomic_write(config, first.text)
    config.chmod(0o644)  # no secret, and a container may read it as somebody else
    if json:
        as_json({"config": str(config), "rows": first.rows, "columns": dict(first.columns)})
        return
    say(f"{first.rows} corrections in {file}")
    for meaning, column in first.columns.items():
        say(f"  {meaning}: column {column}")
    say(f"wrote {config}; next: `ratchet up`, then `ratchet run nightly`")


def _is_the_example(config: Path) -> bool:
    """The config that the repository comes with is nobody's work."""
    from infra.source_tree import SOURCE_ROOT

    return config.resolve() == SOURCE_ROOT / "ratchet.yaml" and config.read_text().startswith(
        "# One pipeline. `ratchet config check`"
    )
