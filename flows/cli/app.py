"""All commands of `ratchet`, one line each."""

from __future__ import annotations

import typer

from flows.cli import config_commands, stack_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep a language model improving on what its users say about it.",
)
app.command()(stack_commands.up)
app.command()(stack_commands.down)
app.command()(stack_commands.status)
app.add_typer(config_commands.app, name="config")
