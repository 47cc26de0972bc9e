"""`ratchet doctor`, `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import DEFAULT_CONFIG, ConfigOption, JsonOption, as_json, load, say


def doctor(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Check versions, ports, disk, processor, base model and who may look in; exit code 1 when something is wrong."""
    from flows.stack.doctor import examine

    found = []
    for finding in examine(load(config, only_look=True)):
        found.append(finding)
        if not json:
            mark = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}[finding.state]
            say(
                f"{mark}  {finding.what}: {finding.found}"
                + (f"\n         -> {finding.advice}" if finding.advice else "")
            )
    if json:
        as_json([finding.model_dump(mode="json") for finding in found])
    if any(finding.state == "problem" for finding in found):
        raise typer.Exit(1)


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
