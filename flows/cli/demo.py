"""`ratchet demo`: play the loop on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    act: Annotated[int | None, typer.Option(min=1, max=3, help="Play one act only.")] = None,
    home: Annotated[Path, typer.Option(help="Folder of everything the demo writes.")] = Path(".ratchet-demo"),
    base_model: Annotated[str | None, typer.Option(help="Folder or name of the base model.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where converted base models are kept.")] = None,
    keep: Annotated[bool, typer.Option("--keep/--stop", help="Leave the servers running at the end.")] = True,
) -> None:
    """Watch the loop close on this machine: a good night, a poisoned night, a bad release."""
    from flows import demo as play

    if not play.run(act=act, home=home, base_model=base_model, cache=cache, keep=keep):
        raise typer.Exit(1)
