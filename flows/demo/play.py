"""Share among the acts the running desk, its ledger and alerts, and customers while a release is watched."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from deploy.ledger.ledger import Entry, ReleaseState, current, history
from flows.config.pipeline import PipelineConfig
from flows.demo.desk import TENANT, open_desk, receiver_port
from flows.demo.facts import ActFacts, LedgerLine, write_facts
from flows.demo.home import CONFIG
from flows.demo.receiver import Receiver, open_receiver
from flows.demo.scribe import Scribe
from flows.demo.sizes import DemoSizes
from flows.demo.users import Answered, Desk, Manners, customers, examine, open_shop
from flows.demo.world import Ticket, tickets
from infra.errors import RatchetError
from infra.settings import Config
from training.base_model import Base

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Play:
    """The stage on which the acts are played."""

    console: Console
    home: Path
    config: PipelineConfig
    sizes: DemoSizes
    desk: Desk
    base: Base
    engine: Engine
    receiver: Receiver

    @property
    def manners(self) -> Manners:
        """How the desk's people behave."""
        return Manners(self.sizes.thumb_rate, self.sizes.thumb_error, self.sizes.label_error)

    @property
    def agent_names(self) -> list[str]:
        """The desk's agents."""
        return [f"agent-{index + 1}" for index in range(self.sizes.agents)]

    def standing(self) -> ReleaseState:
        """What is live now."""
        return current(self.engine, TENANT)

    def lines(self) -> list[Entry]:
        """The ledger."""
        return history(self.engine, TENANT)

    def fresh(self, stream: str, count: int, *, late: bool) -> list[Ticket]:
        """Tickets of a stream nobody has seen: a stream that was played before goes on under another name."""
        takes = 1
        while (self.home / "streams" / f"{stream}-{takes}").exists():
            takes += 1
        mark = self.home / "streams" / f"{stream}-{takes}"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        return tickets(seed=self.sizes.seed, stream=f"{stream}-{takes}", count=count, late=late)

    def curtain(self, scribe: Scribe, *, alerts_before: int) -> ActFacts:
        """End an act: keep its facts."""
        facts = scribe.facts(
            ledger=[ledger_line(entry) for entry in self.lines()], alerts=self.receiver.received[alerts_before:]
        )
        write_facts(self.home / "facts", facts)
        return facts


class Watched(Config):
    """How a canary ended, seen from the desk."""

    ended_by: str
    """Ledger action that ended it, or "nothing" when the tickets ran out first."""
    version: str
    """The version that was watched."""
    answered: int
    """Tickets answered while it was watched."""
    by_canary: int
    """Those that the watched version answered."""
    rated: int
    """Thumbs left."""
    lost: int
    """Requests that got no answer."""
    seconds: float
    """From the first ticket to the end."""


@contextmanager
def open_play(console: Console, home: Path, config: PipelineConfig, sizes: DemoSizes) -> Iterator[Play]:
    """Start the stack (harmless when it runs) and the receiver of alerts, and open the desk."""
    from flows.stack.local_stack import stack_plan
    from flows.stack.secrets_file import load_secrets
    from infra.database.open import open_database
    from infra.file_permissions import close_folder
    from infra.processes import stack
    from training.base_model import resolve_base

    close_folder(config.places.home_dir)
    # Customers of the demo are invented: the split of their tickets may, and must, be the same in every run of a seed.
    load_secrets(config.places, first_salt=f"the invented customers of seed {sizes.seed}")
    with console.status("finding the base model"):
        base = resolve_base(config.base_model, config.places.cache_dir)
    console.print(f"base model {base.version}: {base.name}, found in {base.source}", highlight=False)
    desk = open_desk(config)
    secret = os.environ["RATCHET_WEBHOOK_SECRET"]
    with open_receiver(config.places.host, receiver_port(config), secret) as receiver:
        plan = stack_plan(config, home / CONFIG, base)
        with console.status("starting the servers") as status:
            stack.up(plan, on_progress=lambda line: status.update(f"starting the servers: {line}"))
        engine = open_database(config.places)
        _wait_for_champion(engine)
        yield Play(console, home, config, sizes, desk, base, engine, receiver)


def _wait_for_champion(engine: Engine, seconds: float = 60.0) -> None:
    """The controller makes the base the first champion when it starts."""
    limit = time.monotonic() + seconds
    while current(engine, TENANT).champion is None:
        if time.monotonic() > limit:
            raise RatchetError("the controller made no first champion within a minute; see logs/controller.log")
        time.sleep(0.2)


def watch_canary(play: Play, scribe: Scribe, stream: str) -> Watched:
    """Let customers come while a canary is open, until the controller decides or the tickets run out."""
    started = time.monotonic()
    watch = play.standing().watch
    assert watch is not None, "no canary is open"
    ended = _Ended(play, watch.opened_seq)
    made = play.fresh(stream, play.sizes.live_tickets, late=True)

    async def scene() -> list[Answered]:
        with scribe.scene("customers write while the canary is watched", len(made)) as tick:

            def answered(answer: Answered) -> None:
                scribe.rated(answer)
                tick()

            async with open_shop(play.desk, seed=play.sizes.seed, concurrency=play.sizes.crowd) as shop:
                return await customers(
                    shop, made, play.manners, on_answer=answered, crowd=play.sizes.crowd, enough=ended
                )

    done = asyncio.run(scene())
    # The last thumbs freeze a little later; a decision may still come of them.
    limit = time.monotonic() + play.config.canary.window_seconds + 20.0
    while not ended() and time.monotonic() < limit:
        time.sleep(0.5)
    end = ended.line
    if end is not None:
        name = scribe.names.get(watch.version, watch.version)
        scribe.decided(end.at, f"{name}: {end.action.replace('_', ' ')}")
    return Watched(
        ended_by=end.action if end else "nothing",
        version=watch.version,
        answered=len(done),
        by_canary=sum(one.version == watch.version for one in done),
        rated=sum(one.thumb is not None for one in done),
        lost=sum(one.status != 200 for one in done),
        seconds=time.monotonic() - started,
    )


def exam(play: Play, scribe: Scribe, versions: dict[str, str], made: Sequence[Ticket], where: str) -> dict[str, float]:
    """Let versions (label -> name) answer the same tickets through the gateway; their shares of right answers."""
    shares = {}
    for label, version in versions.items():

        async def scene(version: str = version, label: str = label) -> list[Answered]:
            with scribe.scene(f"{label} answers {where}", len(made)) as tick:
                async with open_shop(play.desk, seed=play.sizes.seed, concurrency=play.sizes.crowd) as shop:
                    return await examine(shop, made, version, on_answer=lambda _: tick())

        answers = asyncio.run(scene())
        shares[label] = scribe.score(label, version, where, [one.right for one in answers]).share
    return shares


def ledger_line(entry: Entry) -> LedgerLine:
    """A ledger entry for people."""
    return LedgerLine(
        seq=entry.seq, at=entry.at, action=entry.action, version=entry.version, actor=entry.actor, reason=entry.reason
    )


class _Ended:
    """Whether the watch that opened with a ledger line is over; asks the ledger at most twice a second."""

    def __init__(self, play: Play, opened_seq: int) -> None:
        self.play = play
        self.opened_seq = opened_seq
        self.line: Entry | None = None
        self.asked = 0.0

    def __call__(self) -> bool:
        if self.line is None and time.monotonic() - self.asked > 0.5:
            self.asked = time.monotonic()
            ends = ("champion", "rolled_back", "withdrawn")
            later = [entry for entry in self.play.lines() if entry.seq > self.opened_seq and entry.action in ends]
            self.line = later[0] if later else None
        return self.line is not None
