"""The demo: a support desk whose model gets better, refuses a bad night, and takes back a bad release.

    ratchet demo                # all three acts
    ratchet demo --act 2        # one act, on the state an earlier play left (or after the acts it needs)

Nothing about the outcome is scripted: simulated people use the real gateway over HTTP, models are trained, and the gate
and the canary decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from flows.demo.sizes import DemoSizes

HOME = Path(".ratchet-demo")


def run(
    *,
    act: int | None = None,
    home: Path = HOME,
    base_model: str | None = None,
    cache: Path | None = None,
    sizes: DemoSizes | None = None,
    keep: bool = True,
    console: Console | None = None,
) -> bool:
    """Play the demo; True when everything came out as it was to be shown.

    Args:
        act: one act only; None plays all three from a clean start.
        home: folder of everything the demo writes; wiped at a clean start, and only if a demo made it.
        base_model: folder or name of the base model; None: the default one.
        cache: where converted base models are kept; None: as for any pipeline.
        sizes: how many tickets and people; None: the full play.
        keep: leave the servers running at the end, to look around.
        console: where the story is told; None: the terminal.

    Raises:
        UserError: `home` holds something that no demo made, or there is no such act.
        RatchetError: a night or a server failed.
    """
    from flows.demo.programme import play

    return play(act=act, home=home, base_model=base_model, cache=cache, sizes=sizes, keep=keep, console=console)
