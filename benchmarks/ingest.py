"""How fast does feedback become training data? `python -m benchmarks.ingest [--events 1000000] [--quick]`

Synthetic events of about 50 words (prompt, answer and correction together) with personal data, near and exact
copies, poison and several kinds of feedback go through every step of the ingest, great-expectations included. Three
questions: events per second and peak memory of one large ingest; the second run, with nothing new; and what 10,000
new events cost over lakes of several sizes. What is promised is judged by the clock, on two cores: one process prepares
batches, the other judges and writes them. CPU seconds and memory are those of both together; memory is what is resident
at one moment, pages that both share counted once (Linux's proportional set size).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psutil

from feedback.events import Edit, Feedback, Interaction, Message, Preference, Rating, Reference, Thumb, Value
from feedback.ingest.run import IngestConfig, run_ingest
from feedback.lake.lake import Lake
from feedback.store.store import Store, land_feedback, land_interactions
from infra.database.connect import begin_write, connect
from infra.database.schema import create_tables

START = datetime(2026, 1, 1, tzinfo=UTC)
WANTED = 2_000
"""Events a second that must be sustained."""
AIM = 5_000
"""What the prefiltered patterns were meant to reach: said, not judged by."""
T = TypeVar("T")


def words(chance: random.Random, count: int, vocabulary: Sequence[str]) -> str:
    """Zipf-like text: low places of the vocabulary are common."""
    size = len(vocabulary)
    return " ".join([vocabulary[int(size ** chance.random()) - 1] for _ in range(count)])


def personal(chance: random.Random) -> str:
    """Something that must not be learned."""
    number = chance.randrange(10**6)
    return chance.choice(
        (
            f"write to person{number}@example.com",
            f"call me at +49 30 {1_000_000 + number}",
            f"my server is 81.2.{number % 250}.{number % 199 + 1}",
            f"password: hunter{number}!x",
        )
    )


def events(start: int, count: int, seed: int = 0) -> Iterator[tuple[Interaction, Feedback]]:
    """`count` events, numbered from `start`; the same numbers give the same events."""
    maker = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(maker.choices(letters, k=maker.randint(2, 10))) for _ in range(20_000)]
    for number in range(start, start + count):
        chance = random.Random(number * 2_654_435_761 % 2**31)
        source = number - 1 if number and chance.random() < 0.03 else number  # 3% near or exact copies
        told = random.Random(source * 40_503 % 2**31)
        prompt, answer, better = (words(told, length, vocabulary) for length in (30, 10, 10))
        if source != number and chance.random() < 0.5:
            prompt += " thanks"
        if chance.random() < 0.03:
            prompt += " " + personal(chance)
        at = START + timedelta(seconds=number)
        pick = chance.random()
        value: Value = (
            Edit(text=better)
            if pick < 0.35
            else Thumb(up=pick < 0.55)
            if pick < 0.7
            else Rating(score=chance.randint(1, 5))
            if pick < 0.8
            else Preference(chosen=better, rejected=answer)
            if pick < 0.92
            else Reference(text=better)
        )
        actor = int(2_000 * chance.random() ** 1.5)
        interaction = Interaction(
            interaction_id=f"i{number}",
            tenant="default",
            user=f"u{number % 5_000}",
            version="v1",
            messages=(Message(role="user", content=prompt),),
            answer=answer,
            created_at=at,
        )
        yield (
            interaction,
            Feedback(
                event_id=f"e{number}",
                tenant="default",
                interaction_id=f"i{number}",
                actor=f"a{actor}",
                trusted=chance.random() < 0.03,
                kind=value.kind,
                value=value,
                created_at=at + timedelta(seconds=30),
            ),
        )


def fill(folder: Path, start: int, count: int) -> None:
    """Put events into the folder's store, in a process of its own: what that needs is not the ingest's."""
    opened(folder)[0].database.dispose()
    child = multiprocessing.get_context("spawn").Process(target=_fill, args=(folder, start, count))
    child.start()
    child.join()
    assert child.exitcode == 0


def _fill(folder: Path, start: int, count: int) -> None:
    """As a source does, 5,000 in a transaction."""
    store, _ = opened(folder)
    lot: list[tuple[Interaction, Feedback]] = []
    for pair in events(start, count):
        lot.append(pair)
        if len(lot) == 5_000:
            _land(store, lot)
            lot = []
    if lot:
        _land(store, lot)


def _land(store: Store, lot: Sequence[tuple[Interaction, Feedback]]) -> None:
    with begin_write(store.database) as connection:
        land_interactions(connection, [i for i, _ in lot])
        land_feedback(connection, [f for _, f in lot])


def opened(folder: Path) -> tuple[Store, Lake]:
    """Store and lake in a folder."""
    engine = connect(f"sqlite:///{folder / 'store.db'}")
    import feedback.lake.quarantine
    import feedback.sources.landing

    assert feedback.lake.quarantine and feedback.sources.landing  # their tables are declared
    create_tables(engine)
    return Store(engine), Lake(folder / "lake")


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """Result, wall-clock seconds, CPU seconds of this process and of those it started and saw end."""
    wall, before = time.perf_counter(), os.times()
    result = work()
    after = os.times()
    return result, time.perf_counter() - wall, sum(after[:4]) - sum(before[:4])


class Peak(threading.Thread):
    """Watches, while open, how much memory this process and those it started hold together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._done.wait(0.25):
            held = 0
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    held += process.memory_full_info().pss
            self.mib = max(self.mib, held / 2**20)

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def grow(folder: Path, before: int, more: int, config: IngestConfig) -> tuple[float, float]:
    """Seconds (wall, CPU) that `more` new events take over a lake of `before`."""
    fill(folder, before, more)
    store, lake = opened(folder)
    report, wall, cpu = timed(lambda: run_ingest(store, lake, (), config))
    assert sum(report.counts["fates"].values()) == more, report.counts["fates"]
    return wall, cpu


def _line(before: int, new: int, wall: float, cpu: float, note: str = "") -> None:
    rates = f"{new / wall:>9,.0f} {new / cpu:>13,.0f}" if new else " " * 23
    print(f"{before:>12,} {new:>9,} {wall:>8.1f} {cpu:>8.1f} {rates}{note}", flush=True)


def main(argv: Sequence[str]) -> int:
    """Print the figures; 1 when the speed or the memory promised is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--more", type=int, default=10_000)
    arguments = parser.parse_args(argv)
    total, more, config = arguments.events, arguments.more, IngestConfig()
    failed = False
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as scratch:
        home = Path(scratch)
        small = home / "small"
        small.mkdir()
        fill(small, 0, more)
        store, lake = opened(small)
        run_ingest(store, lake, (), config)  # imports and caches are warm from here on
        columns = f"{'lake before':>12} {'new':>9} {'wall s':>8} {'CPU s':>8} {'events/s':>9} {'events/CPU s':>13}"
        print(columns, flush=True)
        for before in sorted({more, total // 10, total}):
            if before == more:
                folder = small
            else:
                folder = home / f"lake-{before}"
                folder.mkdir()
                _, landed, _ = timed(lambda folder=folder, before=before: fill(folder, 0, before))  # type: ignore[misc]
                store, lake = opened(folder)
                with Peak() as peak:
                    report, wall, cpu = timed(lambda store=store, lake=lake: run_ingest(store, lake, (), config))  # type: ignore[misc]
                assert sum(report.counts["fates"].values()) == before
                _line(0, before, wall, cpu, f"   (landing {landed:.0f} s)")
                if before == total:
                    failed |= before / wall < WANTED or peak.mib > 1024
                    print(f"{'':12} peak memory {peak.mib:,.0f} MiB; fates {report.counts['fates']}", flush=True)
                    reached = ", ".join(
                        f"{want:,} a second: {'yes' if before / wall >= want else 'NO'}" for want in (WANTED, AIM)
                    )
                    print(f"{'':12} {reached}", flush=True)
                _, wall, cpu = timed(lambda store=store, lake=lake: run_ingest(store, lake, (), config))  # type: ignore[misc]
                failed |= wall > 10
                _line(before, 0, wall, cpu, "   (a second run with nothing new)")
            _line(before, more, *grow(folder, before, more, config))
            if folder != small and before != total:
                shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
