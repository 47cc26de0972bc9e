"""Manage the demo's folder: made with a marker in it, and wiped only when the marker is there."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra.artifact import atomic_write
from infra.errors import UserError
from infra.processes import stack

MARKER = "made-by-ratchet-demo.txt"
CONFIG = "ratchet.yaml"


def start_clean(home: Path) -> None:
    """Stop what an earlier demo left running and wipe its folder; make a new one.

    Raises:
        UserError: the folder holds something that no demo made.
    """
    refuse_strangers(home)
    if home.exists():
        stop(home)
        shutil.rmtree(home)
    home.mkdir(parents=True)
    atomic_write(home / MARKER, "This folder was made by `ratchet demo`, which wipes it when it runs again.\n")


def refuse_strangers(home: Path) -> None:
    """Refuse to touch a folder that no demo made.

    Raises:
        UserError: that is what it is.
    """
    if home.exists() and not (home.is_dir() and ((home / MARKER).exists() or not any(home.iterdir()))):
        raise UserError(
            f"{home} exists and holds no {MARKER}: it was not made by a demo and is left alone; "
            "move it away, or give the demo another folder with --home"
        )


def played(home: Path) -> bool:
    """Whether an earlier demo left a state to go on with."""
    return (home / MARKER).exists() and (home / CONFIG).exists()


def stop(home: Path) -> list[str]:
    """Stop the demo's servers; their names."""
    run_dir = home / "run"
    return stack.down(run_dir) if run_dir.exists() else []
