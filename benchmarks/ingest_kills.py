"""Kill the ingest at random moments: `python -m benchmarks.ingest_kills [--kills 50]`

The test's own desk (a store of 180 events and a file of 60 rows, ingested in batches of 25) is ingested by a process
that is killed with -9 after a random time, again and again; every few kills a run is left to finish and all that it
left behind is compared with an ingest that nobody killed: examples, fates, quarantine, batches, counts. Then it
starts anew. Fails at the first difference.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from feedback.ingest.run import run_ingest
from tests.feedback.ingest.test_run import fill_desk, start, state
from tests.feedback.ingest_child import SMALL, source
from tests.feedback.world import make_lake, make_store

ROUND = 5
"""Kills before a run is left to finish."""


def main(argv: Sequence[str]) -> int:
    """Print how it went; 1 when something was lost, doubled or counted wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    chance, killed, finished, rounds = random.Random(arguments.seed), 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="ratchet-kills-") as scratch:
        home = Path(scratch)
        (home / "desk").mkdir()
        fill_desk(home / "desk")
        shutil.copytree(home / "desk", home / "expected")
        began = time.monotonic()
        run_ingest(make_store(home / "expected"), make_lake(home / "expected"), (source(home / "expected"),), SMALL)
        longest = time.monotonic() - began
        expected = state(home / "expected")
        while killed < arguments.kills:
            rounds += 1
            folder = home / f"round-{rounds}"
            shutil.copytree(home / "desk", folder)
            for _ in range(ROUND):
                child = start(folder)
                assert child.stdout is not None and child.stdout.readline() == "ready\n"
                time.sleep(chance.random() * longest)
                child.kill()
                died = child.wait() == -9
                killed, finished = killed + died, finished + (not died)
                child.stdout.close()
            run_ingest(make_store(folder), make_lake(folder), (source(folder),), SMALL)
            if state(folder) != expected:
                print(f"round {rounds}: what is left differs from an ingest that nobody killed")
                return 1
            shutil.rmtree(folder)
    events = sum(expected["fates"].values())
    print(f"{killed} kills in {rounds} rounds ({finished} runs were done before their kill came)")
    print(f"each round ended with the same {events} events, {expected['batches']} batches and counts as without a kill")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
