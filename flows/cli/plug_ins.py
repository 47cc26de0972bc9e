"""Let installed packages add commands to `ratchet`: entry points of the group ``ratchet.commands``."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from infra.registry import Registry

COMMANDS: Registry[typer.Typer] = Registry("commands", "command", {}, attribute="app", of=typer.Typer)
"""Name -> the Typer app of another package's command or group of commands. Ratchet's own come first."""


class PlugInGroup(TyperGroup):
    """Ratchet's commands, then those of installed packages, which are imported only when they are called or listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names for the help text."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in COMMANDS if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name; None where there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in COMMANDS:
            return own
        command = typer.main.get_command(COMMANDS.named(cmd_name))
        command.name = cmd_name
        return command
