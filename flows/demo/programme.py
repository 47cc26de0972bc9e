"""Choose which acts are played, on which state, and show the result at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.config.pipeline import PipelineConfig
from flows.demo import home as homes
from flows.demo.act_one import play_act_one
from flows.demo.act_three import play_act_three
from flows.demo.act_two import play_act_two, poisoned_version
from flows.demo.desk import read_config, write_config
from flows.demo.facts import read_facts
from flows.demo.play import Play, open_play
from flows.demo.report import print_report, write_report
from flows.demo.sizes import DemoSizes
from infra.errors import RatchetError, UserError

if TYPE_CHECKING:
    from rich.console import Console


def play(
    *,
    act: int | None,
    home: Path,
    base_model: str | None,
    cache: Path | None,
    sizes: DemoSizes | None,
    keep: bool,
    console: Console | None,
) -> bool:
    """See `flows.demo.run`."""
    if act not in (None, 1, 2, 3):
        raise UserError(f"there is no act {act}; there are 1, 2 and 3")
    from rich.console import Console

    console = console or Console()
    home = home.absolute()
    sizes = sizes or DemoSizes()
    config, acts = _opening(console, act, home, base_model, cache, sizes)
    ended = False
    try:
        with open_play(console, home, config, sizes) as stage:
            for number in acts:
                _play_one(stage, number)
            shown = _finale(stage)
        ended = True
        return shown
    finally:
        if not keep or not ended:
            homes.stop(home)
        else:
            console.print(f"\nThe servers go on running; stop them with `ratchet down --config {home / homes.CONFIG}`.")


def _opening(
    console: Console, act: int | None, home: Path, base_model: str | None, cache: Path | None, sizes: DemoSizes
) -> tuple[PipelineConfig, list[int]]:
    """A clean start for act 1 and for the whole demo; acts 2 and 3 go on with what stands, where something does."""
    homes.refuse_strangers(home)
    done = {facts.act for facts in read_facts(home / "facts")} if homes.played(home) else set()
    if act in (2, 3) and 1 in done:
        console.print(f"Going on with the state of the demo in {home}.")
        return read_config(home), [2, 3] if act == 3 and 2 not in done else [act]
    homes.start_clean(home)
    config = write_config(home, base_model=base_model, sizes=sizes, cache=cache)
    acts = [1, 2, 3] if act is None else list(range(1, act + 1))
    if act is not None and act > 1:
        console.print(f"Act {act} needs what the acts before it leave behind: they are played first.")
    return config, acts


def _play_one(stage: Play, number: int) -> None:
    if number == 1:
        play_act_one(stage)
    elif number == 2:
        play_act_two(stage)
    else:
        bad = poisoned_version(stage)
        if bad is None:
            raise RatchetError("act 2 left no version that learnt the poison, so there is nothing bad to release")
        play_act_three(stage, bad)


def _finale(stage: Play) -> bool:
    acts = read_facts(stage.home / "facts")
    places = stage.config.places
    urls = {
        "gateway": places.gateway_url,
        "Prefect": places.prefect_api.removesuffix("/api"),
        "MLflow": places.mlflow,
    }
    page = write_report(stage.home / "report.html", acts, base=stage.config.base_model, urls=urls)
    stage.console.rule("[bold]What came of it")
    print_report(stage.console, acts, page=page, urls=urls)
    return all(facts.shown for facts in acts)
