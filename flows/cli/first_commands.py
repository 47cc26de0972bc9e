"""`ratchet init` and `ratchet ask`: a newcomer's first and last command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, TenantOption, as_json, load, say


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
    found = first_config(
        file, pipeline=pipeline, named={name: column for name, _, column in pairs}, base_model=base_model
    )
    atomic_write(config, found.text)
    config.chmod(0o644)  # no secret, and a container may read it as somebody else
    if json:
        as_json({"config": str(config), "rows": found.rows, "columns": dict(found.columns)})
        return
    say(f"{found.rows} corrections in {file}")
    for meaning, column in found.columns.items():
        say(f"  {meaning}: column {column}")
    say(f"wrote {config}; next: `ratchet up`, then `ratchet run nightly`")


def _is_the_example(config: Path) -> bool:
    """The config that the repository comes with is nobody's work."""
    from infra.source_tree import SOURCE_ROOT

    return config.resolve() == SOURCE_ROOT / "ratchet.yaml" and config.read_text().startswith(
        "# One pipeline. `ratchet config check`"
    )


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    config: ConfigOption = DEFAULT_CONFIG,
    tenant: TenantOption = None,
    model: Annotated[str | None, typer.Option(help="A version by name; default: whoever answers this user.")] = None,
    user: Annotated[str, typer.Option(help="The end user who asks.")] = "ratchet-ask",
    json: JsonOption = False,
) -> None:
    """Ask the running gateway one question, through the official `openai` client where it is installed."""
    import json as json_module

    from flows.config.pipeline import tenant_of
    from flows.stack.first_keys import first_keys
    from flows.stack.gateway_client import asked
    from infra.errors import UserError

    settings = load(config)
    keys = json_module.loads(first_keys(settings).file.read_text())[tenant_of(settings, tenant)]
    if not question.strip():
        raise UserError("the question is empty")
    found = asked(
        f"{settings.places.gateway_url}/v1",
        keys["admin" if model else "app"],
        model=model or settings.pipeline,
        question=question,
        user=user,
    )
    if json:
        as_json(found)
        return
    say(found["answer"])
    say(f"({found['version']})")
